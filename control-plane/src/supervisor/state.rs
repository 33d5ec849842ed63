//! The lifecycle of one service as a pure table: `next(state, event, now) -> (state, actions)`.
//!
//! Nothing here knows processes, sockets or the store; `task.rs` carries the actions out and turns what happens into
//! events. Times and jitter come as arguments.

mod overlap;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use super::{
    backoff::{self, Deaths, Served, Verdict},
    status::ServiceState,
};

/// A worker that is not READY by then is killed.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// For a worker to send its last records and exit once draining is over; then it is killed.
pub(crate) const EXIT_GRACE: Duration = Duration::from_secs(10);
/// A former control plane's worker that has not dialled by then is killed.
pub(crate) const ADOPT_TIMEOUT: Duration = Duration::from_secs(5);
/// At boot, binding a taken port is retried for this long.
pub(crate) const BOOT_BIND_PATIENCE: Duration = Duration::from_secs(30);

const BIND_RETRY_FIRST: Duration = Duration::from_millis(100);
const BIND_RETRY_LONGEST: Duration = Duration::from_secs(2);

/// Where a service is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No worker, no listeners.
    Stopped,
    /// No worker. `refusing`: the breaker opened, the listeners are kept and answer 503.
    Failed { refusing: bool },
    /// A worker of a former control plane runs; it is to dial and give its listeners back. `by` is `None` once it was
    /// killed because it did not.
    Adopting { by: Option<Instant> },
    /// Waiting for its address. `boot`: retried until patience ends, or for ever; `asked`: a caller waits.
    Binding {
        asked: Option<Asked>,
        boot: Option<BootRetry>,
    },
    /// A worker was spawned and is not READY. `ready_by` is `None` once it was killed for that.
    Starting {
        asked: Option<Asked>,
        ready_by: Option<Instant>,
        deaths: Deaths,
    },
    /// READY since then.
    Running { since: Instant, deaths: Deaths },
    /// READY since then, and another worker on the same listeners is not READY yet. `ready_by` is `None` once that was
    /// killed for it.
    Replacing {
        since: Instant,
        deaths: Deaths,
        ready_by: Option<Instant>,
    },
    /// Open exchanges are finishing.
    Draining { then: Then, kill_at: Instant },
    /// The worker is on its way out. `kill_at` is `None` once it was killed.
    Stopping { then: Then, kill_at: Option<Instant> },
    /// The worker died unasked; another one is due.
    Crashed { respawn_at: Instant, deaths: Deaths },
}

/// A start that a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Was the service enabled before? If not, a failed start leaves nothing behind.
    pub(crate) enabled: bool,
}

/// Binding at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BootRetry {
    since: Instant,
    attempt: u32,
    /// Patience has ended, and the service is to wait on.
    lasts: bool,
    retry_at: Option<Instant>,
}

/// What follows when the worker is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Release the listeners.
    Stop,
    /// Start another worker on the same listeners.
    Start(Asked),
    /// As at boot: start another worker, nobody waits for it.
    Boot,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Event {
    /// Somebody wants it to run.
    Start(Asked),
    /// Somebody wants it stopped.
    Stop { drain: Duration },
    /// The same without a worker that serves, while replaced ones drain.
    StopRest { drain: Duration },
    /// A worker of the former control plane is dead, which nobody asked of it, and the service is to run.
    FoundDead,
    /// Somebody wants another build of the worker, without a pause.
    Upgrade,
    /// The worker that is to take over serves.
    SuccessorReady,
    /// It is gone, or could not be spawned.
    SuccessorExited,
    /// Somebody wants a new worker.
    Restart { drain: Duration, asked: Asked },
    /// The control plane came up and the service is enabled.
    Boot,
    /// The control plane came up and found a worker of the former one.
    Found,
    /// That worker serves, has done so for this long, and gave its listeners back.
    Adopted { serving: Duration },
    /// It serves what is not to run any more.
    Unwanted { drain: Duration },
    /// The worker serves, but not where the service is to listen now, and cannot move there.
    Misplaced { drain: Duration },
    /// It was told to drain before. `wanted`: the service is to run.
    FoundDraining { remaining: Duration, wanted: bool },
    /// It is no worker of ours.
    Stranger,
    /// The control plane goes down.
    Shutdown { drain: Duration },
    /// All of its listeners are bound.
    Bound,
    /// At least one could not be. `for_ever`: the service is to wait for it as long as it takes.
    BindFailed { jitter: f64, for_ever: bool },
    /// The worker serves.
    Ready,
    /// The worker has finished open exchanges and will exit.
    Drained,
    /// The worker is gone, or could not be spawned; on the way to a stop, the last one is. `killed`: by somebody else, who
    /// sent it SIGKILL.
    Exited { killed: bool, jitter: f64 },
    /// [`State::due`] has come.
    Due,
}

/// What is to be done about it, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Bind the listeners unless they are held; answers with `Bound` or `BindFailed`.
    Bind,
    /// Start a worker on the listeners; a failure is an `Exited`.
    Spawn,
    /// Ask the worker to drain.
    Drain(Duration),
    /// SIGKILL the worker.
    Kill,
    /// Have nothing more to do with the process: it is not ours.
    Forget,
    /// Start another worker on the listeners beside the one that serves; a failure is a `SuccessorExited`.
    SpawnSuccessor,
    /// SIGKILL it: it is late.
    KillSuccessor,
    /// It serves in the worker's place from now on, which is told to drain.
    Promote,
    /// It is in the place of the worker, which is gone.
    Succeed,
    /// It is not wanted any more, and told to drain.
    Dismiss(Duration),
    /// Close the listeners.
    Release,
    /// Answer 503 on the listeners until the next `Spawn` or `Release`.
    Refuse,
    /// Clear `enabled` in the store: its address stayed taken through boot.
    Disable,
    /// Tell that its address stayed taken through boot and is waited for.
    WaitOn,
    /// Answer the caller that waits.
    Answer(Outcome),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As asked.
    Done,
    /// The address could not be bound.
    BindFailed,
    /// The worker died, or was not READY in time.
    Died,
    /// The one that was to take over did; the worker serves on.
    NotReplaced,
    /// The control plane is stopping.
    ShuttingDown,
}

/// What callers ask of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Start,
    Stop,
    Restart,
    Update,
    Upgrade,
}

/// Another request is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    Starting,
    Stopping,
    Upgrading,
}

impl State {
    /// The same, as it is shown.
    pub(crate) fn shown(&self) -> ServiceState {
        match self {
            Self::Stopped => ServiceState::Stopped,
            Self::Failed { .. }
            | Self::Binding {
                asked: None,
                boot: Some(BootRetry { lasts: true, .. }),
            } => ServiceState::Failed,
            Self::Adopting { .. } | Self::Binding { .. } | Self::Starting { .. } => ServiceState::Starting,
            Self::Running { .. } | Self::Replacing { .. } => ServiceState::Running,
            Self::Draining { .. } => ServiceState::Draining,
            Self::Stopping { .. } => ServiceState::Stopping,
            Self::Crashed { .. } => ServiceState::Crashed,
        }
    }

    /// When [`Event::Due`] is to be sent, unless something else happens first.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self {
            Self::Stopped | Self::Failed { .. } | Self::Running { .. } => None,
            Self::Adopting { by } => *by,
            Self::Binding { boot, .. } => boot.and_then(|boot| boot.retry_at),
            Self::Starting { ready_by, .. } | Self::Replacing { ready_by, .. } => *ready_by,
            Self::Draining { kill_at, .. } => Some(*kill_at),
            Self::Stopping { kill_at, .. } => *kill_at,
            Self::Crashed { respawn_at, .. } => Some(*respawn_at),
        }
    }

    /// Does a request that is under way stand against `request`?
    ///
    /// A start that nobody waits for (boot, respawn) is no conflict: start and restart wait for it, stop ends it.
    /// Requests come after adoption; see `Supervisor::ask`.
    pub(crate) fn conflict(&self, request: Request) -> Option<Conflict> {
        match self {
            Self::Adopting { .. } | Self::Binding { asked: Some(_), .. } | Self::Starting { asked: Some(_), .. } => {
                Some(Conflict::Starting)
            }
            Self::Starting { asked: None, .. } if matches!(request, Request::Update | Request::Upgrade) => {
                Some(Conflict::Starting)
            }
            Self::Binding { .. } if request == Request::Upgrade => Some(Conflict::Starting),
            Self::Replacing { .. } => Some(Conflict::Upgrading),
            Self::Draining { .. } | Self::Stopping { .. } => Some(Conflict::Stopping),
            _ => None,
        }
    }
}

/// The table. A pair that is not in it changes nothing: it is the echo of something that is already over.
///
/// Requests are admitted by [`State::conflict`] first.
pub(crate) fn next(state: State, event: Event, now: Instant) -> (State, Vec<Action>) {
    match event {
        Event::Start(asked) => start(state, asked, now),
        Event::Restart { drain, asked } => match state {
            State::Running { .. } => drain_then(Then::Start(asked), drain, now),
            other => start(other, asked, now),
        },
        Event::Stop { drain } => stop(state, drain, now),
        Event::Shutdown { drain } => shut_down(state, drain, now),
        Event::Boot if state == State::Stopped => boot(now),
        Event::Upgrade | Event::SuccessorReady | Event::SuccessorExited | Event::StopRest { .. } => {
            overlap::next(state, event, now)
        }
        Event::Found
        | Event::Adopted { .. }
        | Event::Unwanted { .. }
        | Event::FoundDraining { .. }
        | Event::FoundDead
        | Event::Stranger => adopt(state, event, now),
        Event::Misplaced { drain } => match state {
            State::Running { .. } => {
                let (state, mut actions) = drain_then(Then::Boot, drain, now);
                actions.push(Action::Release);
                (state, actions)
            }
            other => (other, vec![]),
        },
        Event::Bound => match state {
            State::Binding { asked, .. } => spawn(asked, Deaths::default(), now),
            other => (other, vec![]),
        },
        Event::BindFailed { jitter, for_ever } => match state {
            State::Binding { asked, boot } => bind_failed(asked, boot, for_ever, now, jitter),
            other => (other, vec![]),
        },
        Event::Ready => match state {
            State::Starting { asked, deaths, .. } => {
                (State::Running { since: now, deaths }, answer(asked, Outcome::Done))
            }
            other => (other, vec![]),
        },
        Event::Drained => match state {
            State::Draining { then, .. } => (
                State::Stopping {
                    then,
                    kill_at: Some(now + EXIT_GRACE),
                },
                vec![],
            ),
            other => (other, vec![]),
        },
        Event::Exited { killed, jitter } => exited(state, killed, now, jitter),
        Event::Due => due(state, now),
        Event::Boot => (state, vec![]),
    }
}

/// What became of a worker that a former control plane left. Listeners are bound when all services are through this.
fn adopt(state: State, event: Event, now: Instant) -> (State, Vec<Action>) {
    match (state, event) {
        (State::Stopped, Event::Found) => {
            let by = Some(now + ADOPT_TIMEOUT);
            (State::Adopting { by }, vec![])
        }
        (State::Adopting { .. }, Event::Adopted { serving }) => {
            let (since, deaths) = (now.checked_sub(serving).unwrap_or(now), Deaths::default());
            (State::Running { since, deaths }, vec![])
        }
        (State::Adopting { .. }, Event::Unwanted { drain }) => drain_then(Then::Stop, drain, now),
        (State::Adopting { .. }, Event::FoundDraining { remaining, wanted }) => {
            let kill_at = now + remaining + EXIT_GRACE;
            if wanted {
                // Its listeners are closed: new clients wait in ours for the worker that comes after it.
                (
                    State::Draining {
                        then: Then::Boot,
                        kill_at,
                    },
                    vec![Action::Bind],
                )
            } else {
                (
                    State::Draining {
                        then: Then::Stop,
                        kill_at,
                    },
                    vec![],
                )
            }
        }
        (State::Stopped | State::Adopting { .. }, Event::FoundDead) => boot(now),
        (State::Adopting { .. }, Event::Stranger) => (State::Stopped, vec![Action::Forget]),
        (other, _) => (other, vec![]),
    }
}

fn boot(now: Instant) -> (State, Vec<Action>) {
    let boot = BootRetry {
        since: now,
        attempt: 0,
        lasts: false,
        retry_at: None,
    };
    (
        State::Binding {
            asked: None,
            boot: Some(boot),
        },
        vec![Action::Bind],
    )
}

fn start(state: State, asked: Asked, now: Instant) -> (State, Vec<Action>) {
    match state {
        State::Stopped | State::Failed { .. } => (
            State::Binding {
                asked: Some(asked),
                boot: None,
            },
            vec![Action::Bind],
        ),
        State::Binding { asked: None, boot } => (
            State::Binding {
                asked: Some(asked),
                boot,
            },
            vec![Action::Bind],
        ),
        State::Crashed { .. } => spawn(Some(asked), Deaths::default(), now),
        State::Starting {
            asked: None,
            ready_by,
            deaths,
        } => (
            State::Starting {
                asked: Some(asked),
                ready_by,
                deaths,
            },
            vec![],
        ),
        running @ State::Running { .. } => (running, vec![Action::Answer(Outcome::Done)]),
        other => (other, vec![]),
    }
}

fn stop(state: State, drain: Duration, now: Instant) -> (State, Vec<Action>) {
    match state {
        State::Running { .. } | State::Adopting { .. } => drain_then(Then::Stop, drain, now),
        State::Starting { asked: None, .. } => (
            State::Stopping {
                then: Then::Stop,
                kill_at: None,
            },
            vec![Action::Kill],
        ),
        State::Stopped | State::Failed { .. } | State::Crashed { .. } | State::Binding { asked: None, .. } => stopped(),
        other => (other, vec![]),
    }
}

fn shut_down(state: State, drain: Duration, now: Instant) -> (State, Vec<Action>) {
    let last = now + drain + EXIT_GRACE;
    match state {
        State::Starting { asked, .. } => {
            let mut actions = vec![Action::Kill];
            actions.extend(answer(asked, Outcome::ShuttingDown));
            (
                State::Stopping {
                    then: Then::Stop,
                    kill_at: None,
                },
                actions,
            )
        }
        State::Binding { asked: Some(_), .. } => (
            State::Stopped,
            vec![Action::Release, Action::Answer(Outcome::ShuttingDown)],
        ),
        State::Draining { then, kill_at } => {
            let mut actions = vec![Action::Drain(drain)];
            actions.extend(abandon(then));
            (
                State::Draining {
                    then: Then::Stop,
                    kill_at: kill_at.min(last),
                },
                actions,
            )
        }
        State::Stopping { then, kill_at } => (
            State::Stopping {
                then: Then::Stop,
                kill_at,
            },
            abandon(then),
        ),
        State::Replacing { .. } => overlap::shut_down(drain, now),
        other => stop(other, drain, now),
    }
}

fn abandon(then: Then) -> Vec<Action> {
    match then {
        Then::Start(asked) => answer(Some(asked), Outcome::ShuttingDown),
        Then::Stop | Then::Boot => vec![],
    }
}

fn stopped() -> (State, Vec<Action>) {
    (State::Stopped, vec![Action::Release, Action::Answer(Outcome::Done)])
}

fn drain_then(then: Then, drain: Duration, now: Instant) -> (State, Vec<Action>) {
    let mut actions = vec![Action::Drain(drain)];
    if then == Then::Stop {
        // New clients are refused now, not left to wait in a queue that nobody will read.
        actions.push(Action::Release);
    }
    (
        State::Draining {
            then,
            kill_at: now + drain + EXIT_GRACE,
        },
        actions,
    )
}

fn spawn(asked: Option<Asked>, deaths: Deaths, now: Instant) -> (State, Vec<Action>) {
    (
        State::Starting {
            asked,
            ready_by: Some(now + READY_TIMEOUT),
            deaths,
        },
        vec![Action::Spawn],
    )
}

fn bind_failed(
    asked: Option<Asked>,
    boot: Option<BootRetry>,
    for_ever: bool,
    now: Instant,
    jitter: f64,
) -> (State, Vec<Action>) {
    let mut actions = answer(asked, Outcome::BindFailed);
    let Some(boot) = boot else {
        let enabled = asked.is_some_and(|asked| asked.enabled);
        return (
            if enabled {
                State::Failed { refusing: false }
            } else {
                State::Stopped
            },
            actions,
        );
    };
    let lasts = now.duration_since(boot.since) >= BOOT_BIND_PATIENCE;
    if lasts && !for_ever {
        actions.push(Action::Disable);
        return (State::Failed { refusing: false }, actions);
    }
    if lasts && !boot.lasts {
        actions.push(Action::WaitOn);
    }
    let wait = backoff::delay(boot.attempt, BIND_RETRY_FIRST, BIND_RETRY_LONGEST, jitter);
    let boot = BootRetry {
        attempt: boot.attempt.saturating_add(1),
        lasts,
        retry_at: Some(now + wait),
        ..boot
    };
    (
        State::Binding {
            asked: None,
            boot: Some(boot),
        },
        actions,
    )
}

fn exited(state: State, killed: bool, now: Instant, jitter: f64) -> (State, Vec<Action>) {
    match state {
        State::Starting {
            asked: Some(Asked { enabled: false }),
            ..
        } => (
            State::Failed { refusing: false },
            vec![Action::Release, Action::Answer(Outcome::Died)],
        ),
        State::Starting { asked, deaths, .. } => {
            let (state, mut actions) = died(deaths, Served::Never, now, jitter);
            actions.extend(answer(asked, Outcome::Died));
            (state, actions)
        }
        State::Running { since, deaths } => {
            let time = now.duration_since(since);
            died(deaths, Served::For { time, killed }, now, jitter)
        }
        replacing @ State::Replacing { .. } => overlap::exited(replacing, killed, now, jitter),
        State::Draining { then, .. } | State::Stopping { then, .. } => match then {
            Then::Stop => stopped(),
            Then::Start(asked) => spawn(Some(asked), Deaths::default(), now),
            Then::Boot => boot(now),
        },
        // Started again at boot, if it is to run.
        State::Adopting { .. } => (State::Stopped, vec![]),
        other => (other, vec![]),
    }
}

fn died(mut deaths: Deaths, served: Served, now: Instant, jitter: f64) -> (State, Vec<Action>) {
    match deaths.count(served, now, jitter) {
        Verdict::RespawnAt(respawn_at) => (State::Crashed { respawn_at, deaths }, vec![]),
        Verdict::GiveUp => (State::Failed { refusing: true }, vec![Action::Refuse]),
    }
}

fn due(state: State, now: Instant) -> (State, Vec<Action>) {
    match state {
        State::Crashed { deaths, .. } => spawn(None, deaths, now),
        State::Binding {
            asked,
            boot: Some(boot),
        } => (
            State::Binding {
                asked,
                boot: Some(BootRetry { retry_at: None, ..boot }),
            },
            vec![Action::Bind],
        ),
        State::Adopting { .. } => (State::Adopting { by: None }, vec![Action::Kill]),
        State::Starting { asked, deaths, .. } => (
            State::Starting {
                asked,
                ready_by: None,
                deaths,
            },
            vec![Action::Kill],
        ),
        State::Draining { then, .. } | State::Stopping { then, .. } => {
            (State::Stopping { then, kill_at: None }, vec![Action::Kill])
        }
        State::Replacing { since, deaths, .. } => (
            State::Replacing {
                since,
                deaths,
                ready_by: None,
            },
            vec![Action::KillSuccessor],
        ),
        other => (other, vec![]),
    }
}

fn answer(asked: Option<Asked>, outcome: Outcome) -> Vec<Action> {
    asked.map(|_| Action::Answer(outcome)).into_iter().collect()
}
