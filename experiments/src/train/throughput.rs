//! Images or tokens per second of the training, as a metric of burn-train.

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::TensorReadError;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry, SerializedEntry,
};

/// Images of one step, or tokens including padding.
pub struct ItemsInput(pub usize);

/// The end of the metric's name.
pub const PER_SECOND: &str = " per second";

/// Items per second in the last step and over the round.
#[derive(Clone)]
pub struct Throughput {
    name: MetricName,
    state: NumericMetricState,
    last: Option<Instant>,
}

impl Throughput {
    /// The throughput of `items`: `Images` or `Tokens`.
    pub fn new(items: &str) -> Self {
        Self {
            name: Arc::new(format!("{items}{PER_SECOND}")),
            state: NumericMetricState::new(),
            last: None,
        }
    }
}

impl Metric for Throughput {
    type Input = ItemsInput;

    fn update(&mut self, items: &ItemsInput, _metadata: &MetricMetadata) -> Result<SerializedEntry, TensorReadError> {
        // The first step of a round starts the clock, because the time before it was spent on evaluation.
        if let Some(last) = self.last {
            let micros = last.elapsed().as_micros().max(1) as usize;
            // Weighted by time, the mean over steps is items over time.
            self.state.update(items.0 as f64 / (micros as f64 / 1e6), micros);
        }
        self.last = Some(Instant::now());
        Ok(self.state.compute_update(self.format()))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.state.compute_final(self.format()))
    }

    fn clear(&mut self) {
        self.state.reset();
        self.last = None;
    }

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: None,
            higher_is_better: true,
        }
        .into()
    }
}

impl Throughput {
    fn format(&self) -> FormatOptions {
        FormatOptions::new(self.name()).precision(0)
    }
}

impl Numeric for Throughput {
    fn value(&self) -> Option<NumericEntry> {
        Some(self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}
