//! Equal events that follow each other closely become one.
//!
//! The first is told at once. Those that repeat it within a window are counted, and become one event at its end, which
//! begins the next window; without repeats the window just ends.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use proxyplane_spec::ServiceId;

use super::{
    event::NewEvent,
    kind::{Kind, Severity},
};

/// How long an event's repeats are gathered.
pub(super) const WINDOW: Duration = Duration::from_secs(5);
/// Windows at once. Beyond them, repeats are told one by one.
const WINDOWS: usize = 1_024;

/// What makes events equal.
type Key = (Severity, Kind, &'static str, Option<ServiceId>, String);

/// Events that were told a short while ago.
#[derive(Default)]
pub(super) struct Repeats {
    open: HashMap<Key, Option<Repeat>>,
    /// Windows last equally long, so they end in the order in which they began.
    ends: VecDeque<(Instant, Key)>,
}

/// Repeats of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeat {
    /// The last of them.
    pub(super) latest: NewEvent,
    /// How many.
    pub(super) count: u32,
}

impl Repeats {
    /// The event, unless it repeats one: then it is counted.
    pub(super) fn admit(&mut self, event: NewEvent, now: Instant) -> Option<NewEvent> {
        let key = key(&event);
        if let Some(repeat) = self.open.get_mut(&key) {
            let count = repeat.as_ref().map_or(0, |repeat| repeat.count).saturating_add(1);
            *repeat = Some(Repeat { latest: event, count });
            return None;
        }
        if self.open.len() < WINDOWS {
            self.open.insert(key.clone(), None);
            self.ends.push_back((now + WINDOW, key));
        }
        Some(event)
    }

    /// When the next window ends.
    pub(super) fn due(&self) -> Option<Instant> {
        self.ends.front().map(|(end, _)| *end)
    }

    /// The next of those whose window is over by `now`.
    pub(super) fn ended(&mut self, now: Instant) -> Option<Repeat> {
        while self.due().is_some_and(|end| end <= now) {
            let (_, key) = self.ends.pop_front()?;
            if let Some(repeat) = self.open.remove(&key).flatten() {
                self.open.insert(key.clone(), None);
                self.ends.push_back((now + WINDOW, key));
                return Some(repeat);
            }
        }
        None
    }

    /// All that were counted and not told.
    pub(super) fn finish(&mut self) -> Vec<Repeat> {
        self.ends.clear();
        self.open.drain().filter_map(|(_, repeat)| repeat).collect()
    }
}

fn key(event: &NewEvent) -> Key {
    let service = event.subject.service_id();
    (event.severity, event.kind, event.source, service, event.what.clone())
}
