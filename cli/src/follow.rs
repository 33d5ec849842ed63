//! Streams that outlive the server's restart: they reconnect and say that they did.

use std::time::Duration;

use crate::{error::Error, output};

/// Between attempts to reach the server again.
const RETRY: Duration = Duration::from_secs(1);

/// Whether a followed stream is connected.
#[derive(Default)]
pub(crate) struct Connection {
    was_up: bool,
    down: bool,
}

impl Connection {
    /// The stream is open, and says so: at first, and after a gap, whose meaning `resumed` tells.
    pub(crate) fn up(&mut self, resumed: &str) {
        if self.down {
            output::talk(&format!("connected again; {resumed}"));
        } else if !self.was_up {
            output::talk("watching (Ctrl-C ends)");
        }
        self.was_up = true;
        self.down = false;
    }

    /// The stream ended: waits before the next attempt, or gives the error back if trying again cannot help.
    pub(crate) async fn lost(&mut self, why: Option<Error>) -> Result<(), Error> {
        if let Some(error) = why
            && !(self.was_up && error.is_lost_connection())
        {
            return Err(error);
        }
        if !self.down {
            output::talk("connection lost; trying again until it is back (Ctrl-C ends)");
            self.down = true;
        }
        tokio::time::sleep(RETRY).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> Error {
        Error::Unreachable {
            server: "s".into(),
            cause: "c".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_stream_that_was_up_is_taken_up_again() {
        let mut connection = Connection::default();
        assert!(connection.lost(Some(unreachable())).await.is_err());
        connection.up("nothing is missing");
        assert!(connection.lost(Some(unreachable())).await.is_ok());
        assert!(connection.lost(None).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_ends_it() {
        let mut connection = Connection::default();
        connection.up("nothing is missing");
        let refusal = Error::NotFound {
            what: "proxy",
            name: "x".into(),
            hint: None,
        };
        assert!(connection.lost(Some(refusal)).await.is_err());
    }
}
