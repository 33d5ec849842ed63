//! Traffic first: while there is not enough CPU for everything, the processes of the private Postgres that store what
//! workers record get less of it than they do.
//!
//! A record that waits in its worker's spool costs nobody anything, a request that waits is noticed. But a spool ends:
//! the fuller the fullest one is, the larger the share, and before it is half full that is everybody's.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use proxyplane_spec::Epoch;
use tracing::debug;

use crate::postgres::set_nice;

/// While hardly anything waits: 36 of 1,024 parts of the weight of a process at 0, which has all the CPU that is left
/// over (sched(7)).
const LOWEST: i32 = 15;
/// In per cent of the spool's limit: up to this it is [`LOWEST`],
const YIELDS: u64 = 10;
/// and from this on 0.
const ENDS: u64 = 40;
/// The least limit with which it yields at all: workers report once a second, and a small spool is full before.
const ROOM: u64 = 256 * 1024 * 1024;

/// How much of the CPU ingest's part of the private Postgres gets. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Priority(Option<Arc<Mutex<State>>>);

#[derive(Debug, Default)]
struct State {
    /// Processes of the server that store for us, and what is in force there.
    ruled: HashMap<i32, Option<i32>>,
    /// By worker instance.
    wanted: HashMap<Epoch, i32>,
}

/// A process of the server stores for us. Once this is dropped it does not: whose process that number is then is not known.
#[derive(Debug)]
pub(super) struct Ruled {
    process: i32,
    priority: Priority,
}

impl Priority {
    /// Of a server that is ours, on this machine.
    pub fn of_private() -> Self {
        Self(Some(Arc::default()))
    }

    /// The database is elsewhere, or not ours to rule.
    pub fn none() -> Self {
        Self::default()
    }

    /// Are its processes ours to rule?
    pub(super) fn rules(&self) -> bool {
        self.0.is_some()
    }

    /// A process of the server begins to store for us.
    pub(super) fn rule(&self, process: i32) -> Ruled {
        self.change(|state| {
            state.ruled.insert(process, None);
        });
        Ruled {
            process,
            priority: self.clone(),
        }
    }

    /// A worker's spool has so many bytes of at most so many.
    pub(super) fn spool(&self, epoch: Epoch, used: u64, limit: u64) {
        self.change(|state| {
            state.wanted.insert(epoch, nice(used, limit));
        });
    }

    /// Nobody tells any more how full it is.
    pub(super) fn forget(&self, epoch: Epoch) {
        self.change(|state| {
            state.wanted.remove(&epoch);
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let Some(shared) = &self.0 else { return };
        let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        state.settle(set_nice);
    }
}

impl Drop for Ruled {
    fn drop(&mut self) {
        self.priority.change(|state| {
            state.ruled.remove(&self.process);
        });
    }
}

impl State {
    fn settle(&mut self, set: impl Fn(i32, i32) -> io::Result<()>) {
        let wanted = self.wanted.values().copied().min().unwrap_or(LOWEST);
        for (process, now) in &mut self.ruled {
            if *now == Some(wanted) {
                continue;
            }
            match set(*process, wanted) {
                Ok(()) => *now = Some(wanted),
                // Tried again with the next report.
                Err(error) => debug!(%error, process, wanted, "the priority of storing stays as it is"),
            }
        }
    }
}

/// For a spool with `used` bytes of at most `limit`.
fn nice(used: u64, limit: u64) -> i32 {
    if limit < ROOM {
        return 0;
    }
    let percent = (used.saturating_mul(100) / limit).clamp(YIELDS, ENDS);
    let left = i32::try_from(ENDS - percent).unwrap_or(0);
    LOWEST * left / (ENDS - YIELDS) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024 * 1024 * 1024;

    #[test]
    fn a_spool_that_fills_up_raises_the_share_until_it_is_everybodys() {
        let of_percent = |percent: u64| nice(percent * 10 * 1024 * 1024, 1000 * 1024 * 1024);
        assert_eq!(
            [0, 10, 16, 22, 28, 34, 40, 100].map(of_percent),
            [15, 15, 12, 9, 6, 3, 0, 0]
        );
        assert_eq!(nice(2 * GIB, GIB), 0);
    }

    #[test]
    fn nothing_yields_for_a_spool_that_is_soon_full() {
        assert_eq!([nice(0, 0), nice(0, ROOM - 1), nice(0, ROOM)], [0, 0, LOWEST]);
    }

    #[test]
    fn the_fullest_spool_decides() {
        let (one, other) = (Epoch::new(), Epoch::new());
        let mut state = State::default();
        state.ruled.insert(7, None);
        assert_eq!(settled(&mut state), [(7, LOWEST)]);
        assert_eq!(settled(&mut state), [], "it is so already");
        state.wanted.insert(one, 3);
        state.wanted.insert(other, LOWEST);
        assert_eq!(settled(&mut state), [(7, 3)]);
        state.wanted.remove(&one);
        assert_eq!(settled(&mut state), [(7, LOWEST)]);
    }

    #[test]
    fn every_process_that_stores_is_set_and_one_that_is_given_up_is_left_alone() {
        let (priority, epoch) = (Priority::of_private(), Epoch::new());
        // No process of these numbers can be there: above the kernel's largest.
        let (first, second) = (priority.rule(i32::MAX), priority.rule(i32::MAX - 1));
        let ruled = || {
            let state = priority.0.as_ref().unwrap().lock().unwrap();
            let mut processes: Vec<i32> = state.ruled.keys().copied().collect();
            processes.sort_unstable();
            processes
        };
        assert_eq!(ruled(), [i32::MAX - 1, i32::MAX]);
        priority.spool(epoch, 0, 0);
        drop(first);
        assert_eq!(ruled(), [i32::MAX - 1]);
        drop(second);
        assert!(ruled().is_empty());
    }

    #[test]
    fn what_failed_is_tried_again() {
        let mut state = State::default();
        state.ruled.insert(7, None);
        state.settle(|_, _| Err(io::ErrorKind::WouldBlock.into()));
        assert_eq!(settled(&mut state), [(7, LOWEST)]);
    }

    /// What is set where.
    fn settled(state: &mut State) -> Vec<(i32, i32)> {
        let done = std::cell::RefCell::default();
        state.settle(|process, nice| {
            Vec::push(&mut done.borrow_mut(), (process, nice));
            Ok(())
        });
        done.into_inner()
    }
}
