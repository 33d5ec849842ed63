//! Replaced workers: they accept no more, and end when what they have open is finished, or at their deadline.

use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::time::sleep_until;

use super::{Heard, Task, Worker};
use crate::{
    clock,
    link::FromWorker,
    supervisor::{
        adopt::Adoptee,
        observed::ObservedGeneration,
        run_record::Role,
        state::{ADOPT_TIMEOUT, EXIT_GRACE, Event, State, Then},
    },
};

/// For this long, a client's connection on which nothing is under way is left open to be used once more.
const IDLE: Duration = Duration::from_secs(5);

/// A worker beside the one that serves, on its way out.
pub(super) struct Generation {
    worker: Worker,
    deadline: Instant,
    /// One that was found has not told it yet.
    is_known: bool,
    /// For people.
    deadline_at: OffsetDateTime,
    /// `None` once it was killed.
    kill_at: Option<Instant>,
    /// Another worker serves: its idle clients are given time.
    idle: Duration,
}

impl Generation {
    /// One in whose place another serves.
    pub(super) fn replaced(worker: Worker, drain: Duration) -> Self {
        Self::draining(worker, drain, IDLE.min(drain / 2))
    }

    /// One that nobody takes over from.
    pub(super) fn dismissed(worker: Worker, drain: Duration) -> Self {
        Self::draining(worker, drain, Duration::ZERO)
    }

    fn draining(worker: Worker, drain: Duration, idle: Duration) -> Self {
        let mut generation = Self {
            worker,
            deadline: Instant::now(),
            is_known: true,
            deadline_at: clock::now(),
            kill_at: None,
            idle,
        };
        generation.end_within(drain);
        generation.tell();
        generation
    }

    /// One that a former control plane left: it says that it drains when it dials.
    fn found(worker: Worker) -> Self {
        Self {
            worker,
            deadline: Instant::now() + ADOPT_TIMEOUT,
            is_known: false,
            deadline_at: clock::now() + ADOPT_TIMEOUT,
            kill_at: Some(Instant::now() + ADOPT_TIMEOUT),
            idle: IDLE,
        }
    }

    pub(super) async fn heard(&mut self) -> Heard {
        let kill_at = self.kill_at.map(tokio::time::Instant::from_std);
        tokio::select! {
            heard = self.worker.heard() => heard,
            () = sleep_until(kill_at.unwrap_or_else(tokio::time::Instant::now)), if kill_at.is_some() => Heard::Overdue,
        }
    }

    fn end_within(&mut self, drain: Duration) {
        self.is_known = true;
        self.deadline = Instant::now() + drain;
        self.deadline_at = clock::now() + drain;
        self.kill_at = Some(self.deadline + EXIT_GRACE);
    }

    /// Tells it to drain, and until when. Not connected just now, it is told by a signal, with its own time-out; that is
    /// brought forward when it has dialled.
    fn tell(&self) {
        let remaining = self.deadline.saturating_duration_since(Instant::now());
        if !self.worker.link.drain_keeping_idle(remaining, self.idle) {
            self.worker.process.terminate();
        }
    }

    /// It was killed because it did not end.
    fn was_killed(&self) -> bool {
        self.kill_at.is_none()
    }

    pub(super) fn observed(&self) -> ObservedGeneration {
        ObservedGeneration {
            pid: self.worker.process.pid,
            deadline: self.deadline_at,
            worker: self.worker.link.clone(),
        }
    }
}

impl Task {
    /// Workers of a former control plane that do not serve any more.
    pub(super) fn adopt_draining(&mut self, adoptee: Adoptee) {
        let Adoptee {
            process, link, events, ..
        } = adoptee;
        self.generations
            .push(Generation::found(Worker { process, link, events }));
    }

    /// They are to be gone within this time.
    pub(super) fn hurry(&mut self, drain: Duration) {
        for generation in &mut self.generations {
            if generation.deadline > Instant::now() + drain {
                generation.end_within(drain);
                generation.tell();
            }
        }
    }

    pub(super) fn hear_generation(&mut self, index: usize, heard: Heard) -> Option<Event> {
        let drain = self.shared.options.drain_timeout;
        let generation = self.generations.get_mut(index)?;
        match heard {
            // It was not told, or that was lost: it would serve for ever.
            Heard::News(FromWorker::Ready { .. }) => {
                if !generation.is_known {
                    generation.end_within(drain);
                }
                generation.tell();
            }
            Heard::News(FromWorker::Draining { remaining }) => {
                if !generation.is_known {
                    generation.end_within(remaining);
                } else if generation.deadline < Instant::now() + remaining {
                    generation.tell();
                }
            }
            Heard::News(FromWorker::Drained) => {
                let exits_by = Instant::now() + EXIT_GRACE;
                generation.kill_at = generation.kill_at.map(|at| at.min(exits_by));
            }
            Heard::News(FromWorker::Stranger) => self.disown(index),
            Heard::News(FromWorker::Returned) => {}
            Heard::Overdue => {
                generation.worker.process.kill();
                generation.kill_at = None;
                let pid = generation.worker.process.pid;
                self.log.note(&format!(
                    "worker {pid}, which was replaced, did not end in time; killed"
                ));
            }
            Heard::Exit(exit) => {
                self.bury_generation(index, &exit.to_string());
                return self.last_is_gone();
            }
        }
        None
    }

    /// What a replaced worker was taken for is none of ours: whatever it does, it is left alone.
    fn disown(&mut self, index: usize) {
        let generation = self.generations.remove(index);
        let pid = generation.worker.process.pid;
        tracing::warn!(service = %self.id, pid, "a former worker cannot prove itself; it is left alone");
        self.let_go(generation.worker, Role::Draining);
    }

    fn bury_generation(&mut self, index: usize, exit: &str) {
        let generation = self.generations.remove(index);
        let killed = generation.was_killed();
        let worker = generation.worker;
        let pid = worker.process.pid;
        self.log
            .note(&format!("worker {pid}, which was replaced, ended: {exit}"));
        if killed || exit == "exit status 0" || exit.starts_with("unknown") {
            self.raise_stopped(pid, exit);
        } else {
            let why = format!("worker {pid} died while it finished what it had open: {exit}");
            self.events().worker_crashed(self.subject(), pid, &why, exit);
        }
        self.count_past(&worker);
        self.let_go(worker, Role::Draining);
    }

    /// A stop is over when the last worker is gone, whichever that is.
    pub(super) fn last_is_gone(&self) -> Option<Event> {
        let none_left = self.worker.is_none() && self.generations.is_empty();
        (none_left && self.is_stopping()).then(|| Event::Exited {
            killed: false,
            jitter: rand::random(),
        })
    }

    /// Is it on its way to having no worker?
    pub(super) fn is_stopping(&self) -> bool {
        matches!(
            self.state,
            State::Draining { then: Then::Stop, .. } | State::Stopping { then: Then::Stop, .. }
        )
    }
}
