//! What every server stream has in common: it takes a place of a bounded number, and it ends when the server stops.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _, stream};
use proxyplane_spec::reasons;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

use super::status::Refusal;

/// Streams at once, over all connections; each holds buffers of its own. Further ones are refused.
const STREAMS_MAX: usize = 512;

/// A stream of answers.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Opens streams. Cloning shares the places.
#[derive(Clone)]
pub(super) struct Streams {
    places: Arc<Semaphore>,
    soft: CancellationToken,
}

impl Streams {
    pub(super) fn new(soft: CancellationToken) -> Self {
        Self {
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
            soft,
        }
    }

    /// `answers` until the server stops, then SHUTTING_DOWN.
    pub(super) fn open<T: Send + 'static>(
        &self,
        answers: impl Stream<Item = Result<T, Refusal>> + Send + 'static,
    ) -> Result<Response<Answers<T>>, Refusal> {
        let full = |_| {
            Refusal::new(
                reasons::TOO_MANY_REQUESTS,
                "512 streams are open; close some or try again later",
            )
        };
        let place = self.places.clone().try_acquire_owned().map_err(full)?;
        let soft = self.soft.clone();
        let stopped = soft.clone();
        let end = stream::once(async move { stopped.is_cancelled().then(|| Err(shutting_down())) });
        let answers = answers
            .take_until(soft.cancelled_owned())
            .chain(end.filter_map(std::future::ready));
        Ok(Response::new(Box::pin(answers.map(move |answer| {
            let _held = &place;
            answer.map_err(Status::from)
        }))))
    }
}

/// The server is on its way out.
pub(super) fn shutting_down() -> Refusal {
    Refusal::new(reasons::SHUTTING_DOWN, "the server is stopping")
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn a_stream_ends_when_the_server_stops() {
        let soft = CancellationToken::new();
        let streams = Streams::new(soft.clone());
        let mut idle = streams.open(stream::pending::<Result<(), _>>()).unwrap().into_inner();
        soft.cancel();
        assert_eq!(idle.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
        assert!(idle.next().await.is_none());
    }

    #[tokio::test]
    async fn streams_are_bounded_and_give_their_place_back() {
        let streams = Streams::new(CancellationToken::new());
        let open = || streams.open(stream::pending::<Result<(), _>>());
        let mut held: Vec<_> = (0..STREAMS_MAX).map(|_| open().unwrap()).collect();
        assert_eq!(open().err().unwrap().reason(), reasons::TOO_MANY_REQUESTS);
        held.pop();
        assert!(open().is_ok());
    }

    #[tokio::test]
    async fn a_stream_that_ends_by_itself_ends_well() {
        let streams = Streams::new(CancellationToken::new());
        let answers = streams.open(stream::iter([Ok(1), Ok(2)])).unwrap().into_inner();
        assert_eq!(answers.map(Result::unwrap).collect::<Vec<_>>().await, [1, 2]);
    }
}
