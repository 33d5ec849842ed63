//! Errors that tonic answers by itself (an unknown method, a message that is too long or no message) get a reason, as
//! all others have.

use http::Response;
use tonic::{Code, Status, body::Body};

use super::status::Refusal;

/// `answer`, with a reason if it is an error without one.
pub(super) fn reasoned(answer: Response<Body>) -> Response<Body> {
    match Status::from_header_map(answer.headers()) {
        Some(status) if status.code() != Code::Ok && status.details().is_empty() => {
            Refusal::of_code(&status).map_or(answer, |refusal| Status::from(refusal).into_http())
        }
        _ => answer,
    }
}

#[cfg(test)]
mod tests {
    use proxyplane_spec::reasons;
    use tonic_types::StatusExt as _;

    use super::*;

    fn reason(answer: &Response<Body>) -> Option<String> {
        let status = Status::from_header_map(answer.headers())?;
        status.get_details_error_info().map(|info| info.reason)
    }

    #[test]
    fn an_error_without_a_reason_gets_one_and_any_other_answer_stays() {
        let unknown = reasoned(Status::unimplemented("").into_http());
        assert_eq!(reason(&unknown).as_deref(), Some("UNIMPLEMENTED"));
        let ours = Status::from(Refusal::new(reasons::WORKER_FAILED, "no"));
        assert_eq!(reason(&reasoned(ours.into_http())).as_deref(), Some("WORKER_FAILED"));
        let good = reasoned(Response::new(Body::empty()));
        assert!(Status::from_header_map(good.headers()).is_none());
    }
}
