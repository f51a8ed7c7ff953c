//! metrics.jsonl: one JSON object a line and epoch; and the watch over a loss that is no number.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::train::Interrupter;
use burn::train::logger::{InMemoryMetricLogger, MetricLogger};
use burn::train::metric::store::{EpochSummary, MetricsUpdate, NumericMetricUpdate, Split};
use burn::train::metric::{MetricDefinition, MetricId, NumericEntry};
use serde_json::{Value, json};
use wegeft::storage::write_then_rename;

use crate::clock::Clock;
use crate::output::tell;

/// Why a training stopped that diverged.
pub const NOT_A_NUMBER: &str = "the loss is not a number";

/// Writes the mean of every metric at the end of each epoch's split, and stops the training at the first
/// loss that is not a finite number.
pub struct MetricsFile {
    inner: InMemoryMetricLogger,
    file: File,
    names: Vec<(MetricId, String)>,
    means: Vec<(String, f64)>,
    step: usize,
    bad_step: Arc<Mutex<Option<usize>>>,
    interrupter: Interrupter,
    clock: Clock,
    quiet: bool,
}

impl MetricsFile {
    /// Goes on with `path` after the first `epochs_done` epochs, whose lines it keeps. `bad_step` tells the caller
    /// at which step the loss stopped being a number; `clock` is saved once an epoch. Unless `quiet`, each epoch is a
    /// line on the terminal too.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn open(
        path: &Path,
        epochs_done: usize,
        interrupter: Interrupter,
        bad_step: Arc<Mutex<Option<usize>>>,
        clock: Clock,
        quiet: bool,
    ) -> Result<Self, String> {
        // A run that was cut inside an epoch has left lines of it.
        let text = fs::read_to_string(path).unwrap_or_default();
        let (mut kept, mut step) = (String::new(), 0);
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).unwrap_or_default();
            if value["epoch"].as_u64().is_some_and(|epoch| epoch <= epochs_done as u64) {
                kept += line;
                kept.push('\n');
                step = value["step"].as_u64().unwrap_or(step);
            }
        }
        write_then_rename(path, kept.as_bytes()).map_err(|e| e.to_string())?;
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self {
            inner: InMemoryMetricLogger::default(),
            file: file.map_err(|e| format!("cannot write {}: {e}", path.display()))?,
            names: Vec::new(),
            means: Vec::new(),
            step: step as usize,
            bad_step,
            interrupter,
            clock,
            quiet,
        })
    }
}

fn value(entry: &NumericEntry) -> f64 {
    match entry {
        NumericEntry::Value(value) | NumericEntry::Final(value) => *value,
        NumericEntry::Aggregated { aggregated_value, .. } => *aggregated_value,
    }
}

impl MetricLogger for MetricsFile {
    fn log(&mut self, update: MetricsUpdate, epoch: usize, split: &Split) {
        let training = matches!(split, Split::Train);
        let is_final = |numeric: &NumericMetricUpdate| matches!(numeric.numeric_entry, Some(NumericEntry::Final(_)));
        // burn-train logs once a batch, and once more at the end of an epoch with the final values.
        self.step += usize::from(training && !update.entries_numeric.iter().any(is_final));
        for numeric in &update.entries_numeric {
            let id = &numeric.entry.metric_id;
            let name = self
                .names
                .iter()
                .find(|(known, _)| known == id)
                .map_or("", |(_, name)| name)
                .to_string();
            // The final value of a split without a batch is none.
            if is_final(numeric) && !self.means.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let entry = if is_final(numeric) {
                &numeric.numeric_entry
            } else {
                &numeric.running_entry
            };
            // A throughput is no number before the second step.
            let known = |mean: &f64| name == "Loss" || mean.is_finite();
            if let Some(mean) = entry.as_ref().map(value).filter(known) {
                self.means.retain(|(known, _)| *known != name);
                self.means.push((name.clone(), mean));
            }
            let finite = numeric
                .numeric_entry
                .as_ref()
                .is_none_or(|entry| value(entry).is_finite());
            if name == "Loss" && !finite {
                let mut bad = self.bad_step.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                bad.get_or_insert(self.step);
                self.interrupter.stop(Some(NOT_A_NUMBER));
            }
        }
        self.inner.log(update, epoch, split);
    }

    fn read_numeric(&mut self, name: &str, epoch: usize, split: &Split) -> Result<Vec<NumericEntry>, String> {
        self.inner.read_numeric(name, epoch, split)
    }

    fn log_metric_definition(&mut self, definition: MetricDefinition) {
        self.names
            .push((definition.metric_id.clone(), definition.name.to_string()));
        self.inner.log_metric_definition(definition);
    }

    fn log_epoch_summary(&mut self, summary: EpochSummary) {
        if self.means.is_empty() {
            return self.inner.log_epoch_summary(summary);
        }
        let mut line = json!({ "epoch": summary.epoch_number, "split": summary.split.to_string(), "step": self.step });
        for (name, mean) in &self.means {
            line[name.to_lowercase()] = json!(mean);
        }
        if !self.quiet {
            let means: Vec<String> = self
                .means
                .iter()
                .map(|(name, mean)| format!("{} {mean:.3}", name.to_lowercase()))
                .collect();
            let (epoch, split) = (summary.epoch_number, &summary.split);
            tell(format_args!("  epoch {epoch} {split}: {}", means.join(", ")));
        }
        // A full disk shows when the adapter or the summary is written; a line lost here must not end the run.
        let _ = writeln!(self.file, "{line}");
        self.clock.save();
        self.means.clear();
        self.inner.log_epoch_summary(summary);
    }
}
