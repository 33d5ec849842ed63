//! Replacing a worker by another that serves beside it before it drains, as a part of the table.

use std::time::{Duration, Instant};

use super::{Action, Asked, EXIT_GRACE, Event, Outcome, READY_TIMEOUT, State, Then, drain_then, spawn};
use crate::supervisor::backoff::{Deaths, Served};

impl State {
    /// Until when what is open may finish; `None` unless it drains.
    pub(crate) fn drains_until(&self) -> Option<Instant> {
        match self {
            Self::Draining { kill_at, .. } => kill_at.checked_sub(EXIT_GRACE),
            _ => None,
        }
    }
}

pub(super) fn next(state: State, event: Event, now: Instant) -> (State, Vec<Action>) {
    match (state, event) {
        (State::Running { since, deaths }, Event::Upgrade) => (
            State::Replacing {
                since,
                deaths,
                ready_by: Some(now + READY_TIMEOUT),
            },
            vec![Action::SpawnSuccessor],
        ),
        // There is nothing to overlap with, and no need to wait for the respawn.
        (State::Crashed { .. }, Event::Upgrade) => spawn(Some(Asked { enabled: true }), Deaths::default(), now),
        (State::Replacing { .. }, Event::SuccessorReady) => (
            State::Running {
                since: now,
                deaths: Deaths::default(),
            },
            vec![Action::Promote, Action::Answer(Outcome::Done)],
        ),
        (State::Replacing { since, deaths, .. }, Event::SuccessorExited) => (
            State::Running { since, deaths },
            vec![Action::Answer(Outcome::NotReplaced)],
        ),
        (
            State::Stopped | State::Failed { .. } | State::Crashed { .. } | State::Binding { asked: None, .. },
            Event::StopRest { drain },
        ) => drain_then(Then::Stop, drain, now),
        (other, _) => (other, vec![]),
    }
}

/// The worker that was to be replaced has died: the one that was to replace it need not wait for that any more.
pub(super) fn exited(state: State, killed: bool, now: Instant, jitter: f64) -> (State, Vec<Action>) {
    let State::Replacing {
        since,
        mut deaths,
        ready_by,
    } = state
    else {
        return (state, vec![]);
    };
    // Counted, but no verdict: the next one is on its way.
    let time = now.duration_since(since);
    deaths.count(Served::For { time, killed }, now, jitter);
    let asked = Some(Asked { enabled: true });
    (
        State::Starting {
            asked,
            ready_by,
            deaths,
        },
        vec![Action::Succeed],
    )
}

pub(super) fn shut_down(drain: Duration, now: Instant) -> (State, Vec<Action>) {
    let (state, mut actions) = drain_then(Then::Stop, drain, now);
    actions.insert(0, Action::Dismiss(drain));
    actions.push(Action::Answer(Outcome::ShuttingDown));
    (state, actions)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Conflict, Request, next},
        *,
    };
    use crate::supervisor::status::ServiceState;

    const DRAIN: Duration = Duration::from_secs(30);
    const DEATH: Event = Event::Exited {
        killed: false,
        jitter: 0.5,
    };

    /// A service whose worker is being replaced.
    struct Service {
        state: State,
        now: Instant,
    }

    impl Service {
        fn replacing() -> Self {
            let now = Instant::now();
            let state = State::Running {
                since: now,
                deaths: Deaths::default(),
            };
            let mut service = Self { state, now };
            assert_eq!(service.does(Event::Upgrade), [Action::SpawnSuccessor]);
            service
        }

        fn does(&mut self, event: Event) -> Vec<Action> {
            let (state, actions) = next(self.state.clone(), event, self.now);
            self.state = state;
            actions
        }
    }

    #[test]
    fn the_old_worker_serves_until_the_new_one_does() {
        let mut service = Service::replacing();
        assert_eq!(service.state.shown(), ServiceState::Running);
        for request in [
            Request::Start,
            Request::Stop,
            Request::Restart,
            Request::Update,
            Request::Upgrade,
        ] {
            assert_eq!(
                service.state.conflict(request),
                Some(Conflict::Upgrading),
                "{request:?}"
            );
        }
        assert_eq!(
            service.does(Event::SuccessorReady),
            [Action::Promote, Action::Answer(Outcome::Done)]
        );
        assert_eq!(service.state.shown(), ServiceState::Running);
        assert_eq!(service.does(Event::SuccessorExited), [], "an echo");
        assert_eq!(service.state.conflict(Request::Upgrade), None, "and again");
    }

    #[test]
    fn a_new_worker_that_dies_changes_nothing() {
        let mut service = Service::replacing();
        let since = service.now;
        service.now += READY_TIMEOUT;
        assert_eq!(
            service.does(Event::SuccessorExited),
            [Action::Answer(Outcome::NotReplaced)]
        );
        assert!(matches!(service.state, State::Running { since: still, .. } if still == since));
    }

    #[test]
    fn a_new_worker_that_is_not_ready_in_time_is_killed_once() {
        let mut service = Service::replacing();
        service.now = service.state.due().unwrap();
        assert_eq!(service.does(Event::Due), [Action::KillSuccessor]);
        assert_eq!(service.state.due(), None);
        assert_eq!(
            service.does(Event::SuccessorExited),
            [Action::Answer(Outcome::NotReplaced)]
        );
    }

    #[test]
    fn the_new_worker_takes_the_place_of_an_old_one_that_dies() {
        let mut service = Service::replacing();
        assert_eq!(service.does(DEATH), [Action::Succeed]);
        assert_eq!(service.does(Event::Ready), [Action::Answer(Outcome::Done)]);
        assert_eq!(service.state.shown(), ServiceState::Running);

        let mut service = Service::replacing();
        service.does(DEATH);
        assert_eq!(service.does(DEATH), [Action::Answer(Outcome::Died)], "both are gone");
        assert_eq!(service.state.shown(), ServiceState::Crashed);
    }

    #[test]
    fn an_upgrade_of_what_has_just_crashed_is_a_start() {
        let mut service = Service::replacing();
        service.does(Event::SuccessorExited);
        service.does(DEATH);
        assert_eq!(service.state.shown(), ServiceState::Crashed);
        assert_eq!(service.does(Event::Upgrade), [Action::Spawn]);
        assert_eq!(service.does(Event::Ready), [Action::Answer(Outcome::Done)]);
    }

    #[test]
    fn a_shutdown_drains_both() {
        let mut service = Service::replacing();
        assert_eq!(
            service.does(Event::Shutdown { drain: DRAIN }),
            [
                Action::Dismiss(DRAIN),
                Action::Drain(DRAIN),
                Action::Release,
                Action::Answer(Outcome::ShuttingDown)
            ]
        );
        assert_eq!(service.state.due(), Some(service.now + DRAIN + EXIT_GRACE));
        assert_eq!(service.state.drains_until(), Some(service.now + DRAIN));
    }

    #[test]
    fn a_stop_without_a_worker_waits_for_those_that_drain() {
        let mut service = Service::replacing();
        service.does(Event::SuccessorReady);
        service.does(DEATH);
        assert_eq!(
            service.does(Event::StopRest { drain: DRAIN }),
            [Action::Drain(DRAIN), Action::Release]
        );
        assert_eq!(service.state.shown(), ServiceState::Draining);
        assert_eq!(service.does(DEATH), [Action::Release, Action::Answer(Outcome::Done)]);
    }
}
