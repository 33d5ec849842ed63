//! The client's connection to the origin: one at a time, dialled anew when it has ended.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use proxyplane_record::{Flags, Timings, TlsInfo, error_code};
use tokio::sync::OnceCell;

use super::{
    CONNECTION_WINDOW, FRAME_MAX, HEADER_LIST_MAX, RESETS_REMEMBERED, SEND_BUFFER, STREAM_WINDOW, fault::Cause,
};
use crate::{
    capture::Recorder,
    service::Service,
    upstream::{self, DialError, Origin, Upstream},
};

/// Where a client's exchanges find a connection to its origin.
pub(super) struct Origins {
    service: Arc<Service>,
    origin: Origin,
    current: Mutex<Arc<Slot>>,
}

/// A connection, or one that is being dialled: everybody who needs it waits for the same attempt.
#[derive(Default)]
struct Slot(OnceCell<Live>);

struct Live {
    sender: SendRequest<Bytes>,
    address: Bytes,
    tls: Option<TlsInfo>,
    /// For the exchange that is the first on it.
    dialled: Mutex<Option<Timings>>,
}

/// A connection that an exchange may use.
pub(super) struct Lease {
    slot: Arc<Slot>,
    pub(super) sender: SendRequest<Bytes>,
    /// It has carried an exchange before.
    pub(super) reused: bool,
}

impl Origins {
    /// `first` was dialled by whoever found out that client and origin speak HTTP/2.
    pub(super) async fn new(service: Arc<Service>, origin: Origin, first: Option<Upstream>) -> Self {
        // What speaks HTTP/2 to the client needs it here, whatever else the client had offered.
        let origin = Origin {
            alpn: vec![b"h2".to_vec()],
            ..origin
        };
        let slot = Arc::<Slot>::default();
        // If it has ended already, the first exchange dials.
        if let Some(first) = first
            && let Ok(live) = handshake(&service, first).await
        {
            let _ = slot.0.set(live);
        }
        Self {
            service,
            origin,
            current: Mutex::new(slot),
        }
    }

    /// The connection in use, or a fresh one in place of `stale`.
    pub(super) async fn lease(&self, recorder: &Recorder, stale: Option<&Lease>) -> Result<Lease, DialError> {
        let slot = self.slot(stale);
        let live = slot.0.get_or_try_init(|| self.dial()).await?;
        let dialled = lock(&live.dialled).take();
        recorder.with(|exchange| {
            exchange.origin_address = live.address.clone();
            exchange.origin_tls.clone_from(&live.tls);
            match dialled {
                Some(timings) => {
                    let first_byte_us = exchange.timings.first_byte_us;
                    exchange.timings = Timings {
                        first_byte_us,
                        ..timings
                    };
                    exchange.flags &= !Flags::REUSED_UPSTREAM;
                }
                None => exchange.flags |= Flags::REUSED_UPSTREAM,
            }
        });
        let sender = live.sender.clone();
        Ok(Lease {
            slot: Arc::clone(&slot),
            sender,
            reused: dialled.is_none(),
        })
    }

    fn slot(&self, stale: Option<&Lease>) -> Arc<Slot> {
        let mut current = lock(&self.current);
        if stale.is_some_and(|stale| Arc::ptr_eq(&stale.slot, &current)) {
            *current = Arc::default();
        }
        Arc::clone(&current)
    }

    async fn dial(&self) -> Result<Live, DialError> {
        let upstream = upstream::dial(&self.service, &self.origin).await?;
        if upstream.tls.as_ref().is_some_and(|tls| tls.alpn != "h2") {
            let detail = "the origin does not speak HTTP/2 any more";
            return Err(DialError::new(error_code::UPSTREAM_ABORTED, detail, upstream.facts()));
        }
        handshake(&self.service, upstream).await
    }
}

async fn handshake(service: &Service, upstream: Upstream) -> Result<Live, DialError> {
    let facts = upstream.facts();
    let (sender, connection) = match builder().handshake(upstream.io).await {
        Ok(connected) => connected,
        Err(error) => {
            let (code, detail) = Cause::from(error).of_origin();
            return Err(DialError::new(code, detail, facts));
        }
    };
    let drain = service.drain.clone();
    service.drain.tracker().spawn(async move {
        tokio::select! {
            // How it ends is told to its streams.
            _ = connection => {}
            () = drain.deadline() => {}
        }
    });
    Ok(Live {
        sender,
        address: facts.address,
        tls: upstream.tls,
        dialled: Mutex::new(Some(facts.timings)),
    })
}

fn builder() -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .max_header_list_size(HEADER_LIST_MAX)
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

/// Locks `mutex`; nothing that it guards can be left half-changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
