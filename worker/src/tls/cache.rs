//! Leaves by name: bounded, and each made once however many connections ask for it at the same time.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustls_pki_types::ServerName;

/// A map from names to values made on demand; over its capacity the value that was not asked for since it was last
/// considered goes first (second chance), so a crawl through thousands of hosts does not push out the busy ones.
#[derive(Debug)]
pub(super) struct Cache<V> {
    capacity: usize,
    entries: Mutex<Entries<V>>,
}

#[derive(Debug)]
struct Entries<V> {
    by_name: HashMap<ServerName<'static>, Arc<Slot<V>>>,
    /// Every key of the map once, the next to be considered for eviction first.
    order: VecDeque<ServerName<'static>>,
}

#[derive(Debug)]
struct Slot<V> {
    value: OnceLock<V>,
    used: AtomicBool,
}

impl<V: Clone> Cache<V> {
    pub(super) fn new(capacity: usize) -> Self {
        let entries = Entries {
            by_name: HashMap::new(),
            order: VecDeque::new(),
        };
        Self {
            capacity,
            entries: Mutex::new(entries),
        }
    }

    /// The value of `name`, made by `make` if there is none or `fresh` refuses it. Other names are not held up while
    /// it is made; who asks for the same name waits for it.
    pub(super) fn get_or_make(
        &self,
        name: &ServerName<'static>,
        fresh: impl Fn(&V) -> bool,
        make: impl FnOnce() -> V,
    ) -> V {
        let slot = self.slot(name, fresh);
        slot.value.get_or_init(make).clone()
    }

    fn slot(&self, name: &ServerName<'static>, fresh: impl Fn(&V) -> bool) -> Arc<Slot<V>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = entries.by_name.get(name)
            && slot.value.get().is_none_or(fresh)
        {
            slot.used.store(true, Ordering::Relaxed);
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot {
            value: OnceLock::new(),
            used: AtomicBool::new(false),
        });
        if entries.by_name.insert(name.clone(), Arc::clone(&slot)).is_none() {
            entries.order.push_back(name.clone());
            entries.shrink_to(self.capacity);
        }
        slot
    }
}

impl<V> Entries<V> {
    fn shrink_to(&mut self, capacity: usize) {
        while self.order.len() > capacity {
            let Some(name) = self.order.pop_front() else { return };
            match self.by_name.get(&name) {
                Some(slot) if slot.used.swap(false, Ordering::Relaxed) => self.order.push_back(name),
                _ => drop(self.by_name.remove(&name)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, atomic::AtomicUsize};

    use super::*;

    fn name(text: &str) -> ServerName<'static> {
        ServerName::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn a_value_is_made_once_for_threads_that_ask_together() {
        let (cache, made, start) = (Cache::new(4), AtomicUsize::new(0), Barrier::new(8));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    cache.get_or_make(&name("a.example"), |_| true, || made.fetch_add(1, Ordering::SeqCst));
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn over_capacity_the_unused_go_first() {
        let cache = Cache::new(3);
        for host in ["a.example", "b.example", "c.example", "a.example", "d.example"] {
            cache.get_or_make(&name(host), |_| true, || host);
        }
        let again = |host| cache.get_or_make(&name(host), |_| true, || "made again");
        assert_eq!(again("a.example"), "a.example", "was asked for twice");
        assert_eq!(
            again("b.example"),
            "made again",
            "was the oldest that was asked for once"
        );
        assert_eq!(cache.entries.lock().unwrap().by_name.len(), 3);
    }

    #[test]
    fn it_stays_bounded_when_everything_is_used() {
        let cache = Cache::new(8);
        for round in 0..1_000 {
            for _ in 0..2 {
                cache.get_or_make(&name(&format!("h{}.example", round % 37)), |_| true, || round);
            }
        }
        let entries = cache.entries.lock().unwrap();
        assert_eq!((entries.by_name.len(), entries.order.len()), (8, 8));
    }

    #[test]
    fn a_stale_value_is_made_again_in_its_place() {
        let cache = Cache::new(2);
        cache.get_or_make(&name("a.example"), |_| true, || 1);
        assert_eq!(cache.get_or_make(&name("a.example"), |value| *value > 1, || 2), 2);
        assert_eq!(cache.get_or_make(&name("a.example"), |_| true, || 3), 2);
        assert_eq!(cache.entries.lock().unwrap().order.len(), 1);
    }
}
