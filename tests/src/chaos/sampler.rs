//! What processes take, looked at again and again.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::link;

/// Between looks.
const LOOK: Duration = Duration::from_millis(100);

/// Whom and what to look at.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) worker: i32,
    /// Another one after a restart; 0 while there is none.
    pub(super) control_plane: Arc<AtomicI32>,
    /// The end of the path of the database's socket.
    pub(super) database: String,
}

/// The most that was seen at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Most {
    /// Resident memory of the worker, bytes.
    pub(super) worker: u64,
    /// Resident memory of the control plane, bytes.
    pub(super) control_plane: u64,
    /// Connections to the database, also those that it has not accepted.
    pub(super) connections: usize,
}

/// Looks until it is asked what it saw.
pub(super) struct Sampler {
    done: Arc<AtomicBool>,
    looks: Option<JoinHandle<Most>>,
}

impl Sampler {
    pub(super) fn start(watched: Watched) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&done);
        let looks = thread::spawn(move || {
            let mut most = Most::default();
            while !told.load(Ordering::Relaxed) {
                most.worker = most.worker.max(resident(watched.worker));
                let control_plane = watched.control_plane.load(Ordering::Relaxed);
                most.control_plane = most.control_plane.max(resident(control_plane));
                most.connections = most.connections.max(link::count_to(&watched.database));
                thread::sleep(LOOK);
            }
            most
        });
        Self {
            done,
            looks: Some(looks),
        }
    }

    pub(super) fn stop(mut self) -> Most {
        self.done.store(true, Ordering::Relaxed);
        let looks = self.looks.take().expect("it is stopped once");
        looks.join().expect("looking does not fail")
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

/// `VmRSS` of proc_pid_status(5), in bytes; 0 of a process that is gone.
fn resident(process: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1_024
}
