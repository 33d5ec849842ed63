//! Requests one after the other, until they are told to stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::RawClient;

/// One connection on which requests are sent and answered, or another when an answer says that it was the last on its
/// connection; ends with the test, however that ends.
pub struct Load {
    done: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    client: Option<JoinHandle<usize>>,
}

impl Load {
    /// Sends `request` to `address`, again after each answer, which must be 200 with a body of two bytes.
    pub fn on(address: &str, request: &str) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicUsize::new(0));
        let (told, count) = (Arc::clone(&done), Arc::clone(&served));
        let (address, request) = (address.to_owned(), request.to_owned());
        let client = thread::spawn(move || {
            let mut client = RawClient::connect(&address);
            let mut served = 0;
            while !told.load(Ordering::Relaxed) {
                client.send(&request);
                let head = client.read_head();
                assert!(head.starts_with("HTTP/1.1 200"), "after {served}: {head}");
                client.read_exactly(2);
                if head.to_ascii_lowercase().contains("connection: close") {
                    client = RawClient::connect(&address);
                }
                served += 1;
                count.store(served, Ordering::Relaxed);
            }
            served
        });
        Self {
            done,
            served,
            client: Some(client),
        }
    }

    /// How many requests were answered so far.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// Ends it: how many requests were answered; all were.
    #[track_caller]
    pub fn stop(mut self) -> usize {
        self.done.store(true, Ordering::Relaxed);
        let client = self.client.take().expect("it is stopped once");
        client.join().expect("every request is answered")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}
