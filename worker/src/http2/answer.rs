//! Answers that the proxy gives by itself.

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use proxyplane_record::Flags;

use super::{head, pump};
use crate::{capture::Recorder, core::error_answer};

/// Answers with an error page and records the failure behind it.
pub(super) async fn error(
    recorder: &Recorder,
    respond: &mut SendResponse<Bytes>,
    method: &Method,
    status: StatusCode,
    code: &'static str,
    detail: &str,
) {
    recorder.fail(code, detail.to_owned());
    let page = error_answer(status.as_u16(), code, detail, *method == Method::HEAD);
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    headers.insert(header::CONTENT_LENGTH, page.content_length.into());
    for (name, value) in &page.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    let (parts, ()) = response.into_parts();
    head::describe_response(recorder, &parts);
    recorder.with(|exchange| exchange.flags |= Flags::LOCAL_ANSWER);
    recorder.response_data(&page.body).await;
    recorder.before_end().await;
    // A client that is gone needs no answer.
    if let Ok(mut stream) = respond.send_response(Response::from_parts(parts, ()), page.body.is_empty()) {
        let _ = pump::send(&mut stream, page.body, true).await;
    }
}
