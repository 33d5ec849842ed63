//! The exchanges that completed last.
//!
//! What begins comes in the worker's session and what completes in its record stream, and neither waits for the other.
//! An exchange that is told as begun after it was told as completed would look open for ever.

use std::collections::{HashSet, VecDeque};

use uuid::Uuid;

/// How far the session may lag behind the records, in exchanges.
const KEPT: usize = 4_096;

#[derive(Default)]
pub(super) struct Ended {
    ids: HashSet<Uuid>,
    /// Oldest first.
    order: VecDeque<Uuid>,
}

impl Ended {
    pub(super) fn add(&mut self, id: Uuid) {
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    pub(super) fn has(&self, id: Uuid) -> bool {
        self.ids.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_known() {
        let mut ended = Ended::default();
        let ids: Vec<_> = (0..=KEPT as u128).map(Uuid::from_u128).collect();
        for id in &ids {
            ended.add(*id);
            ended.add(*id);
        }
        let known: Vec<_> = ids.iter().map(|id| ended.has(*id)).collect();
        assert_eq!(known[..2], [false, true]);
        assert!(known[KEPT]);
        assert_eq!(ended.ids.len(), KEPT);
    }
}
