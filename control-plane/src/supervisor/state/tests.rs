use super::*;

const DRAIN: Duration = Duration::from_secs(30);
const NEW: Asked = Asked { enabled: false };
const ENABLED: Asked = Asked { enabled: true };
const DEATH: Event = Event::Exited {
    killed: false,
    jitter: 0.5,
};
const KILL: Event = Event::Exited {
    killed: true,
    jitter: 0.5,
};
const NO_BIND: Event = Event::BindFailed {
    jitter: 0.5,
    for_ever: false,
};

/// A service under test, with a clock that is moved by hand.
struct Service {
    state: State,
    now: Instant,
}

impl Service {
    fn new() -> Self {
        Self {
            state: State::Stopped,
            now: Instant::now(),
        }
    }

    fn running() -> Self {
        let mut service = Self::new();
        service.does(Event::Start(NEW));
        service.does(Event::Bound);
        service.does(Event::Ready);
        service
    }

    fn does(&mut self, event: Event) -> Vec<Action> {
        let (state, actions) = next(self.state.clone(), event, self.now);
        self.state = state;
        actions
    }

    fn shows(&self) -> ServiceState {
        self.state.shown()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Moves the clock to when something is due and lets it happen.
    fn falls_due(&mut self) -> Vec<Action> {
        self.now = self.state.due().expect("something is due");
        self.does(Event::Due)
    }
}

#[test]
fn a_start_binds_then_spawns_then_answers_when_the_worker_is_ready() {
    let mut service = Service::new();
    assert_eq!(service.does(Event::Start(NEW)), [Action::Bind]);
    assert_eq!(service.does(Event::Bound), [Action::Spawn]);
    assert_eq!(service.shows(), ServiceState::Starting);
    assert_eq!(service.does(Event::Ready), [Action::Answer(Outcome::Done)]);
    assert_eq!(service.shows(), ServiceState::Running);
}

#[test]
fn starting_what_runs_and_stopping_what_is_stopped_succeed_without_effect() {
    assert_eq!(
        Service::running().does(Event::Start(ENABLED)),
        [Action::Answer(Outcome::Done)]
    );
    assert_eq!(
        Service::new().does(Event::Stop { drain: DRAIN }),
        [Action::Release, Action::Answer(Outcome::Done)]
    );
}

#[test]
fn requests_during_a_start_or_stop_are_conflicts() {
    let mut service = Service::new();
    service.does(Event::Start(NEW));
    for request in [Request::Start, Request::Stop, Request::Restart, Request::Update] {
        assert_eq!(
            service.state.conflict(request),
            Some(Conflict::Starting),
            "{request:?} while binding"
        );
    }
    service.does(Event::Bound);
    for request in [Request::Start, Request::Stop, Request::Restart, Request::Update] {
        assert_eq!(
            service.state.conflict(request),
            Some(Conflict::Starting),
            "{request:?} while starting"
        );
    }
    service.does(Event::Ready);
    service.does(Event::Stop { drain: DRAIN });
    for request in [Request::Start, Request::Stop, Request::Restart, Request::Update] {
        assert_eq!(
            service.state.conflict(request),
            Some(Conflict::Stopping),
            "{request:?} while draining"
        );
    }
    service.does(Event::Drained);
    assert_eq!(service.state.conflict(Request::Start), Some(Conflict::Stopping));
}

#[test]
fn a_taken_port_fails_a_start_and_leaves_nothing_behind() {
    let mut service = Service::new();
    service.does(Event::Start(NEW));
    assert_eq!(service.does(NO_BIND), [Action::Answer(Outcome::BindFailed)]);
    assert_eq!(service.shows(), ServiceState::Stopped);
}

#[test]
fn a_worker_that_dies_before_ready_fails_a_first_start() {
    let mut service = Service::new();
    service.does(Event::Start(NEW));
    service.does(Event::Bound);
    assert_eq!(service.does(DEATH), [Action::Release, Action::Answer(Outcome::Died)]);
    assert_eq!(service.shows(), ServiceState::Failed);
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_killed() {
    let mut service = Service::new();
    service.does(Event::Start(NEW));
    service.does(Event::Bound);
    assert_eq!(service.falls_due(), [Action::Kill]);
    assert_eq!(service.state.due(), None, "it is killed once");
    assert_eq!(service.does(DEATH), [Action::Release, Action::Answer(Outcome::Died)]);
}

#[test]
fn a_stop_drains_without_listeners() {
    let mut service = Service::running();
    assert_eq!(
        service.does(Event::Stop { drain: DRAIN }),
        [Action::Drain(DRAIN), Action::Release]
    );
    assert_eq!(service.shows(), ServiceState::Draining);
    assert_eq!(service.does(Event::Drained), []);
    assert_eq!(service.shows(), ServiceState::Stopping);
    assert_eq!(service.does(DEATH), [Action::Release, Action::Answer(Outcome::Done)]);
    assert_eq!(service.shows(), ServiceState::Stopped);
}

#[test]
fn a_worker_that_does_not_end_is_killed_after_the_deadline() {
    let mut service = Service::running();
    let asked_at = service.now;
    service.does(Event::Stop { drain: DRAIN });
    assert_eq!(service.falls_due(), [Action::Kill]);
    assert_eq!(service.now - asked_at, DRAIN + EXIT_GRACE);
    assert_eq!(service.state.due(), None);
    assert_eq!(service.does(DEATH), [Action::Release, Action::Answer(Outcome::Done)]);
}

#[test]
fn a_restart_keeps_the_listeners_and_answers_when_the_new_worker_is_ready() {
    let mut service = Service::running();
    assert_eq!(
        service.does(Event::Restart {
            drain: DRAIN,
            asked: ENABLED
        }),
        [Action::Drain(DRAIN)]
    );
    assert_eq!(service.does(DEATH), [Action::Spawn]);
    assert_eq!(service.does(Event::Ready), [Action::Answer(Outcome::Done)]);
}

#[test]
fn a_restart_starts_whatever_came_before() {
    let restart = Event::Restart {
        drain: DRAIN,
        asked: NEW,
    };
    assert_eq!(Service::new().does(restart), [Action::Bind]);
    let mut failed = Service {
        state: State::Failed { refusing: true },
        now: Instant::now(),
    };
    assert_eq!(failed.does(restart), [Action::Bind]);
    let mut crashed = Service::running();
    crashed.does(DEATH);
    assert_eq!(crashed.does(restart), [Action::Spawn]);
}

#[test]
fn a_stable_worker_that_dies_is_replaced_at_once() {
    let mut service = Service::running();
    service.pass(backoff::STABLE_AFTER);
    assert_eq!(service.does(DEATH), []);
    assert_eq!(service.shows(), ServiceState::Crashed);
    assert_eq!(service.state.due(), Some(service.now));
    assert_eq!(service.falls_due(), [Action::Spawn]);
    assert_eq!(service.does(Event::Ready), [], "nobody waits for a respawn");
}

#[test]
fn five_early_deaths_open_the_breaker_and_a_start_closes_it() {
    let mut service = Service::running();
    for _ in 0..4 {
        assert_eq!(service.does(DEATH), []);
        assert_eq!(service.falls_due(), [Action::Spawn]);
    }
    assert_eq!(service.does(DEATH), [Action::Refuse]);
    assert_eq!(service.shows(), ServiceState::Failed);
    assert_eq!(service.does(Event::Start(ENABLED)), [Action::Bind]);
    assert_eq!(service.does(Event::Bound), [Action::Spawn]);
    service.does(Event::Ready);
    assert_eq!(service.does(DEATH), []);
    assert_eq!(service.shows(), ServiceState::Crashed, "earlier deaths are forgotten");
}

#[test]
fn a_worker_that_served_and_was_killed_is_replaced_at_once_however_often() {
    let mut service = Service::running();
    for _ in 0..12 {
        assert_eq!(service.does(KILL), []);
        assert_eq!(service.shows(), ServiceState::Crashed);
        assert_eq!(service.state.due(), Some(service.now), "at once");
        assert_eq!(service.falls_due(), [Action::Spawn]);
        service.does(Event::Ready);
    }
    assert_eq!(service.shows(), ServiceState::Running);
}

#[test]
fn kills_in_between_do_not_keep_a_crash_loop_going() {
    let mut service = Service::running();
    for _ in 0..4 {
        service.does(DEATH);
        service.falls_due();
        service.does(Event::Ready);
        service.does(KILL);
        service.falls_due();
        service.does(Event::Ready);
    }
    assert_eq!(service.does(DEATH), [Action::Refuse]);
}

#[test]
fn a_worker_that_is_killed_before_it_ever_served_counts_as_dead() {
    let mut service = Service::running();
    for _ in 0..4 {
        service.does(KILL);
        service.falls_due();
        assert_eq!(service.does(KILL), []);
        service.falls_due();
        service.does(Event::Ready);
    }
    service.does(KILL);
    service.falls_due();
    assert_eq!(service.does(KILL), [Action::Refuse]);
}

#[test]
fn a_crashed_service_can_be_stopped_and_a_respawning_one_too() {
    let mut service = Service::running();
    service.does(DEATH);
    let (mut crashed, mut respawning) = (
        Service {
            state: service.state.clone(),
            now: service.now,
        },
        service,
    );
    assert_eq!(
        crashed.does(Event::Stop { drain: DRAIN }),
        [Action::Release, Action::Answer(Outcome::Done)]
    );
    respawning.falls_due();
    assert_eq!(respawning.state.conflict(Request::Stop), None);
    assert_eq!(respawning.does(Event::Stop { drain: DRAIN }), [Action::Kill]);
    assert_eq!(respawning.does(DEATH), [Action::Release, Action::Answer(Outcome::Done)]);
}

#[test]
fn a_start_during_a_respawn_waits_for_it() {
    let mut service = Service::running();
    service.does(DEATH);
    service.falls_due();
    assert_eq!(service.state.conflict(Request::Start), None);
    assert_eq!(service.does(Event::Start(ENABLED)), []);
    assert_eq!(service.state.conflict(Request::Start), Some(Conflict::Starting));
    assert_eq!(service.does(Event::Ready), [Action::Answer(Outcome::Done)]);
}

#[test]
fn a_port_taken_at_boot_is_retried_then_the_service_is_disabled() {
    let mut service = Service::new();
    let since = service.now;
    assert_eq!(service.does(Event::Boot), [Action::Bind]);
    loop {
        let actions = service.does(NO_BIND);
        if actions == [Action::Disable] {
            break;
        }
        assert_eq!(actions, []);
        assert_eq!(service.shows(), ServiceState::Starting);
        assert_eq!(service.falls_due(), [Action::Bind]);
    }
    let patience = service.now - since;
    assert!(
        patience >= BOOT_BIND_PATIENCE && patience < BOOT_BIND_PATIENCE + 2 * BIND_RETRY_LONGEST,
        "{patience:?}"
    );
    assert_eq!(service.shows(), ServiceState::Failed);
}

#[test]
fn a_port_taken_at_boot_is_tried_for_ever_if_the_service_says_so() {
    let mut service = Service::new();
    let since = service.now;
    let no_bind = Event::BindFailed {
        jitter: 0.5,
        for_ever: true,
    };
    service.does(Event::Boot);
    while service.now - since < BOOT_BIND_PATIENCE {
        assert_eq!(service.does(no_bind), []);
        assert_eq!(service.shows(), ServiceState::Starting);
        assert_eq!(service.falls_due(), [Action::Bind]);
    }
    assert_eq!(service.does(no_bind), [Action::WaitOn], "told once");
    for _ in 0..100 {
        assert_eq!(service.shows(), ServiceState::Failed);
        assert_eq!(service.falls_due(), [Action::Bind]);
        assert_eq!(service.does(no_bind), []);
    }
    service.falls_due();
    assert_eq!(
        service.does(NO_BIND),
        [Action::Disable],
        "it may be told otherwise meanwhile"
    );

    let mut service = Service::new();
    service.does(Event::Boot);
    service.pass(BOOT_BIND_PATIENCE);
    service.does(no_bind);
    service.falls_due();
    assert_eq!(service.does(Event::Bound), [Action::Spawn]);
    service.does(Event::Ready);
    assert_eq!(service.shows(), ServiceState::Running);
}

#[test]
fn a_start_while_boot_waits_for_the_port_tries_at_once_and_boot_goes_on() {
    let mut service = Service::new();
    service.does(Event::Boot);
    service.does(NO_BIND);
    assert_eq!(service.does(Event::Start(ENABLED)), [Action::Bind]);
    assert_eq!(service.does(NO_BIND), [Action::Answer(Outcome::BindFailed)]);
    assert_eq!(service.falls_due(), [Action::Bind]);
    assert_eq!(service.does(Event::Bound), [Action::Spawn]);
}

#[test]
fn shutdown_answers_who_waits_and_ends_every_state_in_stopped() {
    let shutdown = Event::Shutdown { drain: DRAIN };
    let mut starting = Service::new();
    starting.does(Event::Start(NEW));
    starting.does(Event::Bound);
    assert_eq!(
        starting.does(shutdown),
        [Action::Kill, Action::Answer(Outcome::ShuttingDown)]
    );
    starting.does(DEATH);
    assert_eq!(starting.state, State::Stopped);

    let mut restarting = Service::running();
    restarting.does(Event::Restart {
        drain: Duration::from_hours(1),
        asked: ENABLED,
    });
    assert_eq!(
        restarting.does(shutdown),
        [Action::Drain(DRAIN), Action::Answer(Outcome::ShuttingDown)]
    );
    assert_eq!(restarting.state.due(), Some(restarting.now + DRAIN + EXIT_GRACE));
    restarting.does(DEATH);
    assert_eq!(restarting.state, State::Stopped);

    let mut running = Service::running();
    assert_eq!(running.does(shutdown), [Action::Drain(DRAIN), Action::Release]);
}

fn found() -> Service {
    let mut service = Service::new();
    assert_eq!(service.does(Event::Found), [], "nothing is bound");
    assert_eq!(service.shows(), ServiceState::Starting);
    service
}

#[test]
fn an_adopted_worker_runs_and_its_death_is_no_early_one() {
    let mut service = found();
    let serving = Duration::from_hours(1);
    assert_eq!(service.does(Event::Adopted { serving }), []);
    assert_eq!(service.shows(), ServiceState::Running);
    service.does(DEATH);
    assert_eq!(service.state.due(), Some(service.now), "replaced at once");
}

#[test]
fn a_found_worker_that_does_not_come_back_is_killed_and_left_to_the_boot() {
    let mut service = found();
    assert_eq!(service.falls_due(), [Action::Kill]);
    assert_eq!(service.does(DEATH), []);
    assert_eq!(service.shows(), ServiceState::Stopped);
    assert_eq!(service.does(Event::Boot), [Action::Bind]);
}

#[test]
fn a_worker_that_is_found_dead_is_followed_by_another_at_once_as_is_one_that_dies_before_it_is_adopted() {
    for mut service in [Service::new(), found()] {
        assert_eq!(service.does(Event::FoundDead), [Action::Bind]);
        assert_eq!(service.shows(), ServiceState::Starting);
        assert_eq!(service.does(Event::Bound), [Action::Spawn]);
        assert_eq!(service.does(Event::FoundDead), [], "an echo");
    }
}

#[test]
fn a_found_worker_of_what_is_not_to_run_is_drained_and_stays_away() {
    let mut service = found();
    let unwanted = Event::Unwanted { drain: DRAIN };
    assert_eq!(service.does(unwanted), [Action::Drain(DRAIN), Action::Release]);
    service.does(Event::Drained);
    assert_eq!(service.does(DEATH), [Action::Release, Action::Answer(Outcome::Done)]);
    assert_eq!(service.shows(), ServiceState::Stopped);
}

#[test]
fn a_worker_that_listens_elsewhere_and_cannot_move_is_drained_and_followed_by_another() {
    let misplaced = Event::Misplaced { drain: DRAIN };
    let mut service = found();
    assert_eq!(service.does(misplaced), [], "nobody knows yet where it listens");
    let mut service = Service::running();
    assert_eq!(service.does(misplaced), [Action::Drain(DRAIN), Action::Release]);
    assert_eq!(service.does(DEATH), [Action::Bind]);
    assert_eq!(service.does(Event::Bound), [Action::Spawn]);
}

#[test]
fn a_worker_that_is_found_draining_ends_in_its_own_time() {
    let remaining = Duration::from_secs(7);
    let draining = |wanted| Event::FoundDraining { remaining, wanted };
    let mut service = found();
    assert_eq!(service.does(draining(false)), []);
    assert_eq!(service.state.due(), Some(service.now + remaining + EXIT_GRACE));
    service.does(DEATH);
    assert_eq!(service.shows(), ServiceState::Stopped);

    let mut service = found();
    assert_eq!(
        service.does(draining(true)),
        [Action::Bind],
        "clients wait for the next worker"
    );
    assert_eq!(service.does(Event::Bound), []);
    assert_eq!(service.does(DEATH), [Action::Bind]);
    assert_eq!(service.does(Event::Bound), [Action::Spawn]);
    assert_eq!(service.does(draining(true)), [], "an echo");
}

#[test]
fn a_process_that_is_no_worker_of_ours_is_forgotten_not_killed() {
    let mut service = found();
    assert_eq!(service.does(Event::Stranger), [Action::Forget]);
    assert_eq!(service.shows(), ServiceState::Stopped);
    let mut service = Service::running();
    assert_eq!(service.does(Event::Stranger), []);
    assert_eq!(service.shows(), ServiceState::Running);
}

#[test]
fn a_shutdown_drains_a_worker_that_was_just_found() {
    let mut service = found();
    let shutdown = Event::Shutdown { drain: DRAIN };
    assert_eq!(service.does(shutdown), [Action::Drain(DRAIN), Action::Release]);
    assert_eq!(service.shows(), ServiceState::Draining);
}
