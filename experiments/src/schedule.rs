//! The paper's learning rate: one value an epoch, by the formula of its released code.

use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};

/// Epochs of warm-up of a run that is long enough.
pub const WARMUP: usize = 10;

/// Learning rate of epoch `t` (from 0) of `epochs`: linear from 1e-7 over the warm-up, then a cosine to 1e-6
/// whose angle counts the warm-up epochs too, so that the peak is never quite reached. Runs too short for
/// ten epochs of warm-up use a tenth of their length, rounded up; below ten epochs there is none, since its first epoch
/// would learn nothing.
pub fn learning_rate(t: usize, epochs: usize, peak: f64) -> f64 {
    let warmup = match epochs < WARMUP {
        true => 0,
        false => WARMUP.min(epochs.div_ceil(10)),
    };
    if t < warmup {
        return 1e-7 + t as f64 * (peak - 1e-7) / warmup as f64;
    }
    let angle = std::f64::consts::PI * t as f64 / epochs as f64;
    1e-6 + 0.5 * (peak - 1e-6) * (1.0 + angle.cos())
}

/// [`learning_rate`] for burn-train, which asks once a step.
#[derive(Debug, Clone)]
pub struct PerEpoch {
    /// Peak.
    pub peak: f64,
    /// Epochs of the schedule.
    pub epochs: usize,
    /// Steps of an epoch.
    pub steps_per_epoch: usize,
    /// Steps taken so far.
    pub step: usize,
}

impl LrScheduler for PerEpoch {
    fn step(&mut self) -> f64 {
        let rate = learning_rate(self.step / self.steps_per_epoch, self.epochs, self.peak);
        self.step += 1;
        rate
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new().with_scalar("step", self.step as u64)
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        if let Some(step) = record.scalar::<u64>("step") {
            self.step = step as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::learning_rate;

    #[test]
    fn the_last_epoch_of_a_released_run_has_its_stored_rate() {
        assert!((learning_rate(99, 100, 1e-4) - 1.0244e-6).abs() < 1e-10);
        assert_eq!(learning_rate(0, 100, 1e-4), 1e-7);
        assert!((learning_rate(5, 100, 1e-4) - 5.005e-5).abs() < 1e-10);
    }

    #[test]
    fn short_runs_start_at_the_peak() {
        assert_eq!(learning_rate(0, 1, 1e-2), 1e-2);
        assert_eq!(learning_rate(0, 9, 1e-2), 1e-2);
        assert_eq!(learning_rate(0, 10, 1e-2), 1e-7);
        assert_eq!(
            learning_rate(2, 20, 1e-2),
            1e-6 + 0.5 * (1e-2 - 1e-6) * (1.0 + (0.1 * std::f64::consts::PI).cos())
        );
    }
}
