//! What clients of a service get whose crash breaker is open: 503 from the control plane, on the service's listeners.

use std::{net::TcpListener as StdListener, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use super::listeners::Listeners;

/// Clients that are answered at once; the others wait in the accept queue.
const CLIENTS_MAX: usize = 64;
/// For a client to send its request and take the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failed accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a request that are waited for; a longer head is answered as well.
const HEAD_MAX: usize = 16 * 1024;

const BODY: &str = "503: this proxy's worker keeps failing; `proxyctl proxy get` says why.\n";

/// Lets clients in until it is dropped. The listeners themselves stay open.
#[derive(Debug)]
pub(super) struct Refuser {
    tasks: JoinSet<()>,
}

impl Refuser {
    pub(super) fn on(listeners: &Listeners) -> std::io::Result<Self> {
        let permits = Arc::new(Semaphore::new(CLIENTS_MAX));
        let mut tasks = JoinSet::new();
        for listener in listeners.duplicates()? {
            tasks.spawn(accept(register(listener)?, permits.clone()));
        }
        Ok(Self { tasks })
    }

    /// Lets nobody in any more; its duplicates of the listeners are closed when this returns.
    pub(super) async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Answers whoever waits in the queues of `listeners`, which let nobody in any more.
pub(super) fn answer_waiting(listeners: &Listeners) {
    for listener in listeners.duplicates().into_iter().flatten() {
        while let Ok((client, _)) = listener.accept() {
            let client = client.set_nonblocking(true).and_then(|()| TcpStream::from_std(client));
            if let Ok(client) = client {
                tokio::spawn(tokio::time::timeout(CLIENT_TIMEOUT, answer(client)));
            }
        }
    }
}

fn register(listener: StdListener) -> std::io::Result<TcpListener> {
    TcpListener::from_std(listener)
}

async fn accept(listener: TcpListener, permits: Arc<Semaphore>) {
    while let Ok(permit) = permits.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((client, _)) => {
                // It ends by itself soon; nobody is cut off because a worker comes back.
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(CLIENT_TIMEOUT, answer(client)).await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Reads the request's head first: an answer that is followed by a reset would not be read.
async fn answer(mut client: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while head.len() < HEAD_MAX && !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if client.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await?;
    let mut rest = [0; 4096];
    while client.read(&mut rest).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use proxyplane_spec::ListenHost;

    use super::*;
    use crate::supervisor::listeners::pick_port;

    #[tokio::test]
    async fn clients_are_told_503_until_it_is_dropped_and_then_wait_for_a_worker() {
        let port = pick_port(ListenHost::DEFAULT).unwrap().unwrap();
        let listeners = Listeners::bind(ListenHost::DEFAULT, port).unwrap();
        let refuser = Refuser::on(&listeners).unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client
            .write_all(b"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut text = [0; 64];
        client.read_exact(&mut text).await.unwrap();
        assert!(text.starts_with(b"HTTP/1.1 503 "));

        drop(refuser);
        tokio::task::yield_now().await;
        let _queued = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let worker = TcpListener::from_std(listeners.duplicates().unwrap().remove(0)).unwrap();
        worker.accept().await.unwrap();
    }
}
