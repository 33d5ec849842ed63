//! The workers beside the one that serves: what is heard of whichever says something first.

use std::future::pending;

use futures_util::future::select_all;

use super::{Heard, generations::Generation, overlap::Overlap};

/// Who was heard.
pub(super) enum Beside {
    /// The worker that is to take over.
    Successor(Heard),
    /// A replaced one, by its place.
    Generation(usize, Heard),
}

/// Waits until one of them says something or ends, or is overdue. May be cancelled and called again.
pub(super) async fn heard(overlap: &mut Option<Overlap>, generations: &mut [Generation]) -> Beside {
    let successor = overlap.as_mut().and_then(|overlap| overlap.successor.as_mut());
    let successor = async {
        match successor {
            Some(successor) => Beside::Successor(successor.heard().await),
            None => pending().await,
        }
    };
    let generations = async {
        if generations.is_empty() {
            return pending().await;
        }
        let each = generations.iter_mut().map(|generation| Box::pin(generation.heard()));
        let (heard, index, _) = select_all(each).await;
        Beside::Generation(index, heard)
    };
    tokio::select! {
        heard = successor => heard,
        heard = generations => heard,
    }
}
