//! What a call waits for, told on standard error while it does.

use std::{pin::pin, time::Duration};

use clap::Args;
use proxyplane_proto::v1::GetProxyServiceRequest;
use tokio::time::{Instant, interval_at};

use super::super::Context;
use crate::{error::Error, output, view::Proxy, when};

/// Between looks at what is waited for.
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

/// What a call waits for.
pub(super) struct Wait {
    /// Told again at once when it is another.
    what: String,
    line: String,
}

/// What a proxy still has open while it drains.
pub(super) fn open(proxy: &Proxy) -> Option<Wait> {
    let open = proxy.still_open()?;
    Some(Wait {
        what: open.what.clone(),
        line: format!("proxy '{}' finishes {}{}", proxy.full_name(), open.what, open.until()),
    })
}

/// The records that a stopped proxy still has in spools.
pub(super) fn records(proxy: &Proxy) -> Option<Wait> {
    let (records, bytes) = proxy.left_behind()?;
    let line = format!(
        "proxy '{}' is deleted once {records} records ({}) in its spool are stored; --discard gives them up",
        proxy.full_name(),
        when::bytes(bytes)
    );
    let what = "records".to_owned();
    Some(Wait { what, line })
}

/// Waits for `call`, and tells what it waits for, by what the proxy `id` looks like meanwhile.
pub(super) async fn told<T>(
    context: &Context,
    id: &str,
    call: impl Future<Output = Result<T, tonic::Status>>,
    waits_for: impl Fn(&Proxy) -> Option<Wait>,
) -> Result<T, Error> {
    let mut call = pin!(call);
    let mut looks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    let mut last: Option<(String, Instant)> = None;
    loop {
        let look = async {
            looks.tick().await;
            let request = GetProxyServiceRequest { id: id.to_owned() };
            let answer = context.client.proxies().get_proxy_service(request).await.ok()?;
            waits_for(&Proxy::from(answer.into_inner().proxy_service?))
        };
        let seen = tokio::select! {
            done = &mut call => return Ok(done?),
            seen = look => seen,
        };
        let Some(Wait { what, line }) = seen else { continue };
        let news = last
            .as_ref()
            .is_none_or(|(told, at)| *told != what || at.elapsed() >= TELL_AGAIN);
        if news {
            output::talk(&line);
            last = Some((what, Instant::now()));
        }
    }
}
