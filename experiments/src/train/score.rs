//! A metric over all held-out examples together, such as a correlation, which is not a mean over batches.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorReadError};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry, SerializedEntry,
};
use datasets::glue;

/// Predictions for a batch and the correct answers, `[batch]` each: class indices or scores.
pub struct ScoreInput {
    /// Predictions.
    pub predicted: Tensor<1>,
    /// Correct answers.
    pub right: Tensor<1>,
}

/// One of GLUE's metrics, in percent, over everything since the last [`Metric::clear`].
#[derive(Clone)]
pub struct Score {
    metric: glue::Metric,
    name: MetricName,
    predicted: Vec<f64>,
    right: Vec<f64>,
}

impl Score {
    /// Starts without data.
    pub fn new(metric: glue::Metric) -> Self {
        Self {
            metric,
            name: Arc::new(metric.name().into()),
            predicted: Vec::new(),
            right: Vec::new(),
        }
    }

    /// 0 if the metric is not defined, such as a correlation of identical answers: no better than chance.
    fn percent(&self) -> f64 {
        100.0 * self.metric.of_numbers(&self.predicted, &self.right).unwrap_or(0.0)
    }

    fn entry(&self) -> SerializedEntry {
        let percent = self.percent();
        SerializedEntry::new(format!("{percent:.2} %"), percent.to_string())
    }
}

impl Metric for Score {
    type Input = ScoreInput;

    fn update(&mut self, item: &ScoreInput, _metadata: &MetricMetadata) -> Result<SerializedEntry, TensorReadError> {
        self.predicted.extend(item.predicted.try_to_vec_as::<f64>()?);
        self.right.extend(item.right.try_to_vec_as::<f64>()?);
        Ok(self.entry())
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry())
    }

    fn clear(&mut self) {
        self.predicted.clear();
        self.right.clear();
    }

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: Some("%".into()),
            higher_is_better: true,
        }
        .into()
    }
}

impl Numeric for Score {
    fn value(&self) -> Option<NumericEntry> {
        Some(NumericEntry::Value(self.percent()))
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.value()
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.percent())
    }
}
