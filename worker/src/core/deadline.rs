//! One timer for all the waiting of a connection.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A point in time that moves. Moving it later costs nothing: the timer below fires early and is set again.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Moves it to `after` from now.
    pub(crate) fn set(&mut self, after: Duration) {
        let at = Instant::now() + after;
        self.at = Some(at);
        match &mut self.timer {
            Some(timer) if timer.deadline() > at => timer.as_mut().reset(at),
            Some(_) => {}
            None => self.timer = Some(Box::pin(sleep_until(at))),
        }
    }

    /// There is none.
    pub(crate) fn clear(&mut self) {
        self.at = None;
    }

    /// Ready once it has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(at), Some(timer)) = (self.at, &mut self.timer) else {
            return Poll::Pending;
        };
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_may_be_moved_both_ways() {
        let begun = Instant::now();
        let mut deadline = Deadline::default();
        deadline.set(Duration::from_secs(2));
        deadline.set(Duration::from_secs(5));
        poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(begun.elapsed().as_secs(), 5);
        deadline.set(Duration::from_secs(9));
        deadline.set(Duration::from_secs(1));
        poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(begun.elapsed().as_secs(), 6);
    }
}
