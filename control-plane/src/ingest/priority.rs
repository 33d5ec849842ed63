//! Traffic first: while there is not enough CPU for everything, the process of the private Postgres that stores what
//! workers record gets less of it than they do.
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
    backend: Option<i32>,
    /// What is in force there.
    set: Option<i32>,
    /// By worker instance.
    wanted: HashMap<Epoch, i32>,
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

    /// Is there a process to rule over?
    pub(super) fn is_ruled(&self) -> bool {
        self.0.is_some()
    }

    /// A process of the server has begun to store for us.
    pub(super) fn begins(&self, backend: i32) {
        self.change(|state| (state.backend, state.set) = (Some(backend), None));
    }

    /// The connection is given up: whose process that is from now on is not known.
    pub(super) fn ends(&self) {
        self.change(|state| state.backend = None);
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

impl State {
    fn settle(&mut self, set: impl FnOnce(i32, i32) -> io::Result<()>) {
        let Some(backend) = self.backend else { return };
        let wanted = self.wanted.values().copied().min().unwrap_or(LOWEST);
        if self.set == Some(wanted) {
            return;
        }
        match set(backend, wanted) {
            Ok(()) => self.set = Some(wanted),
            // Tried again with the next report.
            Err(error) => debug!(%error, backend, wanted, "the priority of storing stays as it is"),
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
        let mut state = State {
            backend: Some(7),
            ..State::default()
        };
        assert_eq!(settled(&mut state), Some((7, LOWEST)));
        assert_eq!(settled(&mut state), None, "it is so already");
        state.wanted.insert(one, 3);
        state.wanted.insert(other, LOWEST);
        assert_eq!(settled(&mut state), Some((7, 3)));
        state.wanted.remove(&one);
        assert_eq!(settled(&mut state), Some((7, LOWEST)));
    }

    #[test]
    fn a_new_process_is_set_as_the_one_before_and_one_that_is_given_up_is_left_alone() {
        let priority = Priority::of_private();
        let state = priority.0.as_ref().unwrap();
        let mut state = state.lock().unwrap();
        state.backend = Some(7);
        assert_eq!(settled(&mut state), Some((7, LOWEST)));
        (state.backend, state.set) = (None, None);
        assert_eq!(settled(&mut state), None);
        state.backend = Some(8);
        assert_eq!(settled(&mut state), Some((8, LOWEST)));
    }

    #[test]
    fn what_failed_is_tried_again() {
        let mut state = State {
            backend: Some(7),
            ..State::default()
        };
        state.settle(|_, _| Err(io::ErrorKind::WouldBlock.into()));
        assert_eq!(settled(&mut state), Some((7, LOWEST)));
    }

    /// What is set where.
    fn settled(state: &mut State) -> Option<(i32, i32)> {
        let mut done = None;
        state.settle(|backend, nice| {
            done = Some((backend, nice));
            Ok(())
        });
        done
    }
}
