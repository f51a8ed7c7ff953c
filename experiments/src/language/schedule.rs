//! Learning rates that change every step, as Hugging Face's schedules do.

use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use serde::{Deserialize, Serialize};

/// What follows the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// A straight line to 0.
    #[default]
    Linear,
    /// Half a cosine to 0.
    Cosine,
    /// The peak.
    Constant,
}

impl Shape {
    /// The shape of that name.
    ///
    /// # Errors
    /// An unknown name.
    pub fn named(name: &str) -> Result<Self, String> {
        match name {
            "linear" => Ok(Self::Linear),
            "cosine" => Ok(Self::Cosine),
            "constant" => Ok(Self::Constant),
            other => Err(format!(
                "field 'lr_scheduler' is '{other}'; choose linear, cosine or constant"
            )),
        }
    }
}

/// Warm-up in a straight line from 0, then [`Shape`].
#[derive(Debug, Clone)]
pub struct PerStep {
    /// Peak.
    pub peak: f64,
    /// Steps of warm-up.
    pub warmup: usize,
    /// All steps.
    pub steps: usize,
    /// What follows the warm-up.
    pub shape: Shape,
    /// Steps taken so far.
    pub step: usize,
}

impl PerStep {
    /// A schedule of `steps`, the first `ceil(warmup_ratio · steps)` of them warm-up.
    pub fn new(peak: f64, warmup_ratio: f64, steps: usize, shape: Shape) -> Self {
        Self {
            peak,
            warmup: (warmup_ratio * steps as f64).ceil() as usize,
            steps,
            shape,
            step: 0,
        }
    }

    /// The rate of step `t`, from 0.
    pub fn rate(&self, t: usize) -> f64 {
        if t < self.warmup {
            return self.peak * t as f64 / self.warmup as f64;
        }
        let done = (t - self.warmup) as f64 / (self.steps.saturating_sub(self.warmup)).max(1) as f64;
        match self.shape {
            Shape::Linear => self.peak * (1.0 - done).max(0.0),
            Shape::Cosine => self.peak * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()),
            Shape::Constant => self.peak,
        }
    }
}

impl LrScheduler for PerStep {
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
    fn rates_are_those_of_transformers() {
        // transformers 4's get_linear_schedule_with_warmup(optimizer, 10, 100) and the cosine one, times 1e-3.
        let linear = PerStep::new(1e-3, 0.1, 100, Shape::Linear);
        for (t, rate) in [(0, 0.0), (5, 5e-4), (10, 1e-3), (55, 5e-4), (99, 1e-3 / 90.0)] {
            assert!((linear.rate(t) - rate).abs() < 1e-12, "{t}");
        }
        let cosine = PerStep::new(1e-3, 0.1, 100, Shape::Cosine);
        assert!((cosine.rate(55) - 5e-4).abs() < 1e-12 && cosine.rate(100) < 1e-12);
        assert_eq!(PerStep::new(1e-3, 0.0, 4, Shape::Constant).rate(3), 1e-3);
        assert!(Shape::named("step").unwrap_err().contains("'step'"));
    }
}
