//! The state of a training over all its sessions: its evaluations, and problems.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::train::EarlyStoppingStrategy;
use burn::train::metric::store::EventStoreClient;

use crate::run::grid::{Best, best_round};

/// The state that is watched.
#[derive(Debug, Default)]
pub struct Watch {
    /// Round and value of each evaluation, those of earlier sessions included.
    pub evaluations: Vec<(usize, f64)>,
    /// Images or tokens per second of each round of this session.
    pub speeds: Vec<f64>,
    /// The first step whose loss or gradient was not a number.
    pub bad_step: Option<usize>,
    /// True if it was the first step of all: nothing that was trained can be the cause.
    pub before_training: bool,
    /// The tensor that caused it.
    pub bad_tensor: Option<String>,
    /// The tensor whose gradient was not a number, of a loss that was one.
    pub bad_gradient: Option<String>,
    /// Notes to print after the training.
    pub notes: Vec<String>,
    /// Why metrics.jsonl could not be written.
    pub failure: Option<String>,
}

/// A watch that logger, checkpoints and trainer share.
#[derive(Debug, Clone)]
pub struct SharedWatch {
    watch: Arc<Mutex<Watch>>,
    rule: Best,
    patience: Option<usize>,
}

impl SharedWatch {
    /// An empty state; `rule` tells which evaluation is the best, `patience` after how many evaluations without
    /// improvement to stop.
    pub fn new(rule: Best, patience: Option<usize>) -> Self {
        Self {
            watch: Arc::default(),
            rule,
            patience,
        }
    }

    /// The state.
    pub fn get(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The best evaluation; the first one in case of ties.
    pub fn best(&self) -> Option<(usize, f64)> {
        best_round(&self.get().evaluations, self.rule)
    }

    /// True if there was no improvement for `patience` evaluations.
    pub fn is_over(&self) -> bool {
        let (Some(patience), Some((best, _))) = (self.patience, self.best()) else {
            return false;
        };
        let since = self.get().evaluations.iter().filter(|(round, _)| *round > best).count();
        since >= patience
    }
}

impl EarlyStoppingStrategy for SharedWatch {
    fn should_stop(&mut self, _epoch: usize, _store: &EventStoreClient) -> bool {
        self.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_counts_evaluations_since_the_best() {
        let watch = SharedWatch::new(Best::Lowest, Some(2));
        let mut over = Vec::new();
        for (round, loss) in [(1, 3.0), (2, 2.0), (3, 2.5), (4, 2.0)] {
            watch.get().evaluations.push((round, loss));
            over.push(watch.is_over());
        }
        assert_eq!(over, [false, false, false, true]);
        assert_eq!(watch.best(), Some((2, 2.0)));
        let patient = SharedWatch::new(Best::Lowest, None);
        patient.get().evaluations = vec![(1, 1.0), (2, 2.0), (3, 3.0)];
        assert!(!patient.is_over());
    }
}
