//! Learning-rate schedules.

use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};

use crate::train::settings::Schedule;

/// Epochs of warm-up of the paper's schedule, if the run is long enough.
const WARMUP: usize = 10;

/// A schedule and its current step.
#[derive(Debug, Clone)]
pub struct Rates {
    schedule: Schedule,
    peak: f64,
    /// Steps of warm-up.
    warmup: usize,
    epochs: usize,
    steps: usize,
    /// Steps taken so far.
    step: usize,
}

impl Rates {
    /// A schedule of `steps` steps in `epochs` epochs; the first `ceil(warmup_ratio · steps)` steps are warm-up.
    pub fn new(schedule: Schedule, peak: f64, warmup_ratio: f64, epochs: usize, steps: usize) -> Self {
        Self {
            schedule,
            peak,
            warmup: (warmup_ratio * steps as f64).ceil() as usize,
            epochs,
            steps,
            step: 0,
        }
    }

    /// The rate of step `t`, counted from 0.
    pub fn rate(&self, t: usize) -> f64 {
        if self.schedule == Schedule::Paper {
            let steps_per_epoch = (self.steps / self.epochs.max(1)).max(1);
            return paper(t / steps_per_epoch, self.epochs, self.peak);
        }
        if t < self.warmup {
            return self.peak * t as f64 / self.warmup as f64;
        }
        let done = (t - self.warmup) as f64 / (self.steps.saturating_sub(self.warmup)).max(1) as f64;
        match self.schedule {
            Schedule::Linear => self.peak * (1.0 - done).max(0.0),
            Schedule::Cosine => self.peak * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()),
            Schedule::Constant | Schedule::Paper => self.peak,
        }
    }
}

/// The paper's learning rate of epoch `t` (from 0) of `epochs`, by the formula of its released code: linear from 1e-7
/// over the warm-up, then a cosine to 1e-6 whose angle includes the warm-up epochs, so the peak is never quite reached.
/// Runs that are too short for ten epochs of warm-up use a tenth of their length, rounded up; runs below ten epochs
/// have no warm-up, since its first epoch would learn nothing.
fn paper(t: usize, epochs: usize, peak: f64) -> f64 {
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

impl LrScheduler for Rates {
    fn step(&mut self) -> f64 {
        let rate = self.rate(self.step);
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
    use super::*;

    #[test]
    fn the_last_epoch_of_a_released_run_has_its_stored_rate() {
        let rates = Rates::new(Schedule::Paper, 1e-4, 0.1, 100, 700);
        assert!((rates.rate(99 * 7 + 6) - 1.0244e-6).abs() < 1e-10);
        assert_eq!((rates.rate(0), rates.rate(6)), (1e-7, 1e-7));
        assert!((rates.rate(5 * 7) - 5.005e-5).abs() < 1e-10);
    }

    #[test]
    fn short_runs_start_at_the_peak() {
        assert_eq!(paper(0, 1, 1e-2), 1e-2);
        assert_eq!(paper(0, 9, 1e-2), 1e-2);
        assert_eq!(paper(0, 10, 1e-2), 1e-7);
        assert_eq!(
            paper(2, 20, 1e-2),
            1e-6 + 0.5 * (1e-2 - 1e-6) * (1.0 + (0.1 * std::f64::consts::PI).cos())
        );
    }

    #[test]
    fn rates_are_those_of_transformers() {
        // transformers 4's get_linear_schedule_with_warmup(optimizer, 10, 100) and the cosine one, times 1e-3.
        let linear = Rates::new(Schedule::Linear, 1e-3, 0.1, 1, 100);
        for (t, rate) in [(0, 0.0), (5, 5e-4), (10, 1e-3), (55, 5e-4), (99, 1e-3 / 90.0)] {
            assert!((linear.rate(t) - rate).abs() < 1e-12, "{t}");
        }
        let cosine = Rates::new(Schedule::Cosine, 1e-3, 0.1, 1, 100);
        assert!((cosine.rate(55) - 5e-4).abs() < 1e-12 && cosine.rate(100) < 1e-12);
        assert_eq!(Rates::new(Schedule::Constant, 1e-3, 0.0, 1, 4).rate(3), 1e-3);
    }
}
