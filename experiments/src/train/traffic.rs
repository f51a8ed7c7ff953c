//! Bytes between this machine and its workers in each optimizer step.

use std::sync::{Arc, Mutex, PoisonError};

use crate::cli::remote;

/// Counts them over a training.
#[derive(Clone, Default)]
pub struct Traffic(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The counts at the start of the step before, if nothing but that step happened since.
    since: Option<(u64, u64)>,
    /// The first step is not counted: models move in it.
    first_is_over: bool,
    steps: u64,
    bytes: (u64, u64),
}

impl Traffic {
    /// A step begins.
    pub fn step(&self) {
        if let Some(now) = remote::bytes() {
            self.step_at(now);
        }
    }

    fn step_at(&self, now: (u64, u64)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = state.since.replace(now)
            && std::mem::replace(&mut state.first_is_over, true)
        {
            state.steps += 1;
            state.bytes.0 += now.0 - since.0;
            state.bytes.1 += now.1 - since.1;
        }
    }

    /// Something else begins, such as an evaluation.
    pub fn pause(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).since = None;
    }

    /// The mean of a step, if some were counted.
    pub fn sentence(&self) -> Option<String> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mean = |bytes: u64| bytes as f64 / state.steps as f64 / 1e3;
        (state.steps > 0).then(|| {
            format!(
                "{:.1} kB to the workers and {:.1} kB from them per step",
                mean(state.bytes.0),
                mean(state.bytes.1)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_steps_after_the_first_are_counted() {
        let traffic = Traffic::default();
        traffic.step_at((1_000, 0)); // a model went before
        traffic.step_at((900_000, 50)); // and its copies in the first step
        assert_eq!(traffic.sentence(), None);
        traffic.step_at((901_000, 550));
        traffic.pause();
        traffic.step_at((999_000, 9_000)); // an evaluation lies between
        traffic.step_at((1_001_000, 10_500));
        let sentence = "1.5 kB to the workers and 1.0 kB from them per step";
        assert_eq!(traffic.sentence().as_deref(), Some(sentence));
    }
}
