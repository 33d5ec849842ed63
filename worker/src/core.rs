//! The exchange core: HTTP/1 from one side to the other, recorded as it passes.
//!
//! A `Session` reads requests from a client's connection; `Session::exchange` carries one of them to an origin and
//! its answer back. Heads are parsed and written anew, bodies stream through one buffer for each direction.

mod answer;
mod body;
mod buffer;
mod deadline;
mod describe;
mod exchange;
mod leg;
mod outgoing;
mod pool;
mod session;
#[cfg(test)]
mod tests;
mod transfer;
mod upgrade;

use proxyplane_h1::Form;

pub use self::leg::{Cut, Downstream};
pub(crate) use self::{
    answer::error as error_answer,
    buffer::ReadBuffer,
    describe::connect as describe_connect,
    exchange::After,
    leg::Leg,
    session::{Request, Session},
};
use crate::{
    forward::Connection,
    upstream::{DialError, Upstream},
};

/// Carries the requests of a client whose origin is fixed (`ctx.origin`): what follows CONNECT, with TLS or without.
///
/// `prefix` was read from `client` already. `upstream` is a connection to the origin for the first request. False if the
/// client sent nothing, so that nothing of it is recorded.
pub async fn serve_h1<C: Downstream + 'static>(ctx: Connection, client: C, prefix: &[u8], upstream: Upstream) -> bool {
    let Some(origin) = ctx.origin.clone() else { return false };
    let mut session = Session::new(ctx, client, prefix);
    session.pool.keep(origin.clone(), pool::Line::new(upstream));
    while let Some(request) = session.next_request().await {
        if *request.head.form() == Form::Authority {
            session
                .refuse_request(request, &origin, "there is no proxy inside of this tunnel")
                .await;
            return true;
        }
        match session.exchange(request, &origin).await {
            After::Continue => {}
            After::Close => break,
            After::Drop => return true,
            After::Upgrade(upgrade) => {
                upgrade.spawn(session);
                return true;
            }
        }
    }
    let asked = session.asked;
    session.close().await;
    asked
}

/// Tells a client, on its first request, why its origin cannot be reached. False if it sent no request.
pub async fn serve_error<C: Downstream>(ctx: Connection, client: C, error: &DialError) -> bool {
    let Some(origin) = ctx.origin.clone() else { return false };
    let mut session = Session::new(ctx, client, &[]);
    match session.next_request().await {
        Some(request) => {
            session.refuse_with(request, &origin, error).await;
            true
        }
        None => false,
    }
}
