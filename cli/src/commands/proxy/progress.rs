//! What a call waits for, told on standard error while it does.

use std::{pin::pin, time::Duration};

use clap::Args;
use proxyplane_proto::v1::GetProxyServiceRequest;
use tokio::time::{Instant, interval_at};

use super::super::Context;
use crate::{error::Error, output, view::Proxy, when};

/// Between looks at what is still open.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Nothing is told twice in a row before this has passed.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// How long what is open may take to finish.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct DrainTimeout {
    /// How long open exchanges may take to finish, such as 5s (the server's setting unless given).
    #[arg(long, value_name = "DURATION", value_parser = when::parse_duration)]
    drain_timeout: Option<Duration>,
}

impl DrainTimeout {
    pub(super) fn value(self) -> Result<Option<prost_types::Duration>, Error> {
        let convert = |timeout: Duration| {
            timeout
                .try_into()
                .map_err(|_| Error::Usage("--drain-timeout is too long".into()))
        };
        self.drain_timeout.map(convert).transpose()
    }
}

/// Waits for `call`, and tells what the proxy `id` still has open while it drains.
pub(super) async fn told<T>(
    context: &Context,
    id: &str,
    call: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, Error> {
    let mut call = pin!(call);
    let mut looks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    let mut last: Option<(String, Instant)> = None;
    loop {
        let look = async {
            looks.tick().await;
            let request = GetProxyServiceRequest { id: id.to_owned() };
            let answer = context.client.proxies().get_proxy_service(request).await.ok()?;
            let proxy = Proxy::from(answer.into_inner().proxy_service?);
            Some((proxy.full_name(), proxy.still_open()?.clone()))
        };
        let seen = tokio::select! {
            done = &mut call => return Ok(done?),
            seen = look => seen,
        };
        let Some((name, open)) = seen else { continue };
        let news = last
            .as_ref()
            .is_none_or(|(told, at)| *told != open.what || at.elapsed() >= TELL_AGAIN);
        if news {
            output::talk(&format!("proxy '{name}' finishes {}{}", open.what, open.until()));
            last = Some((open.what, Instant::now()));
        }
    }
}
