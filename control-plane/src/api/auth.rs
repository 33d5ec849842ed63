//! The bearer token that every call needs, even on loopback: another user of the machine, a web page or a proxied
//! request reaches loopback too.

use std::{
    fs::{self, OpenOptions},
    future::{Ready, ready},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use proxyplane_spec::reasons;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tonic::{Status, body::Body};
use tower::Service;

use super::status::Refusal;

/// What may be called without a token: health probes have none to give.
const OPEN: &str = "/grpc.health.v1.Health/";

/// The API's bearer token. Only its digest is kept in memory.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// Reads the token, or makes one of 256 random bits, readable by its owner only.
    pub fn load_or_create(path: &Path) -> io::Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) if text.trim().len() >= 32 => return Ok(Self::new(text.trim())),
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "is no token; remove it to get a new one",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let text = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        // Written beside and renamed, so that a crash never leaves half a token.
        let unfinished = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        Ok(Self::new(&text))
    }

    /// The token that is spelled so.
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Do these headers carry it? Takes the same time whatever they carry.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let given = headers
            .get(AUTHORIZATION)
            .map(http::HeaderValue::as_bytes)
            .unwrap_or_default();
        let (scheme, token) = given.split_at(given.len().min("Bearer ".len()));
        let digest: [u8; 32] = Sha256::digest(token.trim_ascii()).into();
        scheme.eq_ignore_ascii_case(b"Bearer ") & bool::from(digest.ct_eq(&self.0))
    }
}

/// Lets calls with the token through and answers the others UNAUTHENTICATED.
#[derive(Clone)]
pub(super) struct Authenticated<S> {
    inner: S,
    token: Token,
}

impl<S> Authenticated<S> {
    pub(super) fn new(inner: S, token: Token) -> Self {
        Self { inner, token }
    }
}

impl<S, B> Service<Request<B>> for Authenticated<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.uri().path().starts_with(OPEN) || self.token.is_in(request.headers()) {
            return Either::Left(self.inner.call(request));
        }
        let message =
            "the bearer token is missing or wrong: `serve` keeps it in secrets/api.token of its data directory";
        let status = Status::from(Refusal::new(reasons::UNAUTHENTICATED, message));
        Either::Right(ready(Ok(status.into_http())))
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, os::unix::fs::MetadataExt as _};

    use tonic::Code;
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    async fn answer(path: &str, authorization: Option<&str>) -> Option<Code> {
        let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Body::empty())));
        let mut request = Request::builder().uri(path);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let service = Authenticated::new(inner, Token::new("the-token"));
        let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
        Status::from_header_map(response.headers()).map(|status| status.code())
    }

    #[tokio::test]
    async fn only_the_token_lets_a_call_through() {
        let path = "/proxyplane.v1.SystemService/GetSystemStatus";
        for good in ["Bearer the-token", "bearer the-token"] {
            assert_eq!(answer(path, Some(good)).await, None, "{good}");
        }
        let wrong = [
            "",
            "Bearer",
            "Bearer ",
            "Bearer the-tokem",
            "Bearer the-token2",
            "Basic the-token",
            "the-token",
        ];
        for bad in wrong.map(Some).into_iter().chain([None]) {
            assert_eq!(answer(path, bad).await, Some(Code::Unauthenticated), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn health_is_open_and_reflection_is_not() {
        assert_eq!(answer("/grpc.health.v1.Health/Check", None).await, None);
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        assert_eq!(answer(reflection, None).await, Some(Code::Unauthenticated));
    }

    #[test]
    fn a_token_is_made_once_and_only_its_owner_reads_it() {
        let path = std::env::temp_dir().join(format!("proxyplane-token-{}", uuid::Uuid::now_v7()));
        let made = Token::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(made.0, Token::load_or_create(&path).unwrap().0);
        fs::write(&path, "").unwrap();
        assert!(Token::load_or_create(&path).is_err());
        fs::remove_file(path).unwrap();
    }
}
