//! The memory in use after each optimizer step: its mean and 99th percentile describe a training better than its peak.

use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{Module, ModuleDisplay};
use burn::optim::GradientsParams;
use burn::tensor::Device;
use wegeft::Adapted;

use crate::run::memory::in_use_mb;
use crate::train::step::{Objective, Part};

/// Memory after each step so far, MB.
#[derive(Debug, Clone, Default)]
pub struct MemoryLog(Arc<Mutex<Vec<f64>>>);

impl MemoryLog {
    fn add(&self, device: &Device) {
        if let Some(mb) = in_use_mb(device) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(mb);
        }
    }

    /// Mean over the last `count` steps; `None` before the first one, and where the system does not tell.
    pub fn mean_of_last(&self, count: usize) -> Option<f64> {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = &steps[steps.len().saturating_sub(count)..];
        (!last.is_empty()).then(|| last.iter().sum::<f64>() / last.len() as f64)
    }

    /// Mean and 99th percentile; `None` before the first step or if the system does not report it.
    pub fn mean_and_99th(&self) -> Option<(f64, f64)> {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        steps.sort_by(f64::total_cmp);
        let last = steps.len().checked_sub(1)?;
        // Linear interpolation between neighbours, as in NumPy.
        let place = 0.99 * last as f64;
        let below = steps[place.floor() as usize];
        let above = steps[place.ceil() as usize];
        let mean = steps.iter().sum::<f64>() / steps.len() as f64;
        Some((mean, below + (above - below) * place.fract()))
    }
}

/// An objective whose steps are logged.
#[derive(Debug, Clone)]
pub struct Logged<O> {
    objective: O,
    log: MemoryLog,
    device: Device,
}

impl<O> Logged<O> {
    /// `objective`, with its steps on `device` logged in `log`.
    pub fn new(objective: O, log: MemoryLog, device: &Device) -> Self {
        Self {
            objective,
            log,
            device: device.clone(),
        }
    }
}

impl<M: Module + ModuleDisplay, O: Objective<M>> Objective<M> for Logged<O> {
    type Batch = O::Batch;
    const WEIGHS: bool = O::WEIGHS;

    fn begin(&self, steps_done: usize) {
        self.objective.begin(steps_done);
    }

    fn terms(&self, batch: &O::Batch) -> usize {
        self.objective.terms(batch)
    }

    fn items(&self, batch: &O::Batch) -> usize {
        self.objective.items(batch)
    }

    fn loss_and_grads(
        &self,
        adapted: &Adapted<M>,
        batch: O::Batch,
        denominator: f64,
        seed: u64,
    ) -> (Part, GradientsParams) {
        self.objective.loss_and_grads(adapted, batch, denominator, seed)
    }

    fn evaluate(&self, adapted: &Adapted<M>, batch: O::Batch, denominator: f64) -> Part {
        self.objective.evaluate(adapted, batch, denominator)
    }

    fn within<R: Send>(&self, device: &Device, work: impl FnOnce() -> R + Send) -> R {
        self.objective.within(device, work)
    }

    fn stepped(&self) {
        self.log.add(&self.device);
        self.objective.stepped();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_percentile_is_numpy_s() {
        let log = MemoryLog::default();
        assert_eq!(log.mean_and_99th(), None);
        *log.0.lock().unwrap() = vec![4.0, 1.0, 3.0, 2.0];
        let (mean, percentile) = log.mean_and_99th().unwrap();
        assert_eq!((log.mean_of_last(2), log.mean_of_last(9)), (Some(2.5), Some(2.5)));
        assert!((mean - 2.5).abs() < 1e-12 && (percentile - 3.97).abs() < 1e-12);
    }
}
