//! metrics.jsonl: one JSON object per line for every n-th step and every round; also watches for a loss that is not a
//! number.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::train::Interrupter;
use burn::train::logger::{InMemoryMetricLogger, MetricLogger};
use burn::train::metric::store::{EpochSummary, MetricsUpdate, NumericMetricUpdate, Split};
use burn::train::metric::{MetricDefinition, MetricId, NumericEntry};
use files::File;
use serde_json::{Value, json};

use crate::cli::output::tell;
use crate::run::clock::Clock;
use crate::run::files::{Line, keep_lines, read_lines};
use crate::train::throughput::PER_SECOND;
use crate::train::watch::SharedWatch;

/// Why a diverged training stopped.
pub const NOT_A_NUMBER: &str = "the loss is not a number";

/// The split in lines of single steps.
const STEP: &str = "step";

/// How a training is logged.
pub struct Log<'a> {
    /// metrics.jsonl.
    pub path: &'a Path,
    /// Finished rounds, whose lines are kept.
    pub rounds_done: usize,
    /// The metric by which evaluations are judged, in lower case.
    pub judged_by: &'static str,
    /// Steps between lines of single steps.
    pub every: usize,
    /// Number of steps in the whole training.
    pub steps: usize,
    /// If false, each line is also printed on the terminal.
    pub quiet: bool,
    /// What a round is: `round_name`.
    pub round: &'static str,
}

/// Writes the mean of every metric at the end of each round's split, and stops the training at the first loss that is
/// not finite.
pub struct MetricsFile {
    inner: InMemoryMetricLogger,
    path: PathBuf,
    file: File,
    names: Vec<(MetricId, String)>,
    means: Vec<(String, f64)>,
    judged_by: &'static str,
    every: usize,
    step: usize,
    steps: usize,
    session: (Instant, usize),
    watch: SharedWatch,
    interrupter: Interrupter,
    clock: Clock,
    quiet: bool,
    round: &'static str,
}

impl MetricsFile {
    /// Opens `log` and continues it. `watch` receives the evaluations of all sessions and reports of problems; `clock`
    /// is saved once per round.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(log: &Log, interrupter: Interrupter, watch: SharedWatch, clock: Clock) -> Result<Self, String> {
        // A run that was interrupted within a round has left lines of that round.
        let mut lines: Vec<Line<Value>> = read_lines(log.path)?;
        lines.retain(|(_, line)| {
            line["epoch"]
                .as_u64()
                .is_some_and(|epoch| epoch <= log.rounds_done as u64)
        });
        keep_lines(log.path, &lines)?;
        let step = lines.iter().filter_map(|(_, line)| line["step"].as_u64()).next_back();
        watch.get().evaluations = lines
            .iter()
            .filter(|(_, line)| line["split"] == "valid")
            .filter_map(|(_, line)| Some((line["epoch"].as_u64()? as usize, line[log.judged_by].as_f64()?)))
            .collect();
        let file = File::append(log.path);
        let step = step.unwrap_or(0) as usize;
        Ok(Self {
            inner: InMemoryMetricLogger::default(),
            file: file.map_err(|e| format!("cannot write {}: {e}", log.path.display()))?,
            path: log.path.to_path_buf(),
            names: Vec::new(),
            means: Vec::new(),
            judged_by: log.judged_by,
            every: log.every.max(1),
            step,
            steps: log.steps,
            session: (Instant::now(), step),
            watch,
            interrupter,
            clock,
            quiet: log.quiet,
            round: log.round,
        })
    }

    fn append(&mut self, line: &Value) {
        // After a failed write, nothing more is written: the next start resumes after the last complete round.
        if self.watch.get().failure.is_some() {
            return;
        }
        let written = self.file.write_line(&line.to_string());
        self.heard(written);
    }

    /// Stops the training if a line cannot be written.
    fn heard(&mut self, written: io::Result<()>) {
        let Err(error) = written else { return };
        let message = format!("cannot write {}: {error}", self.path.display());
        self.watch.get().failure.get_or_insert(message);
        self.interrupter.stop(Some("metrics.jsonl cannot be written"));
    }

    /// Writes the line of every n-th step.
    fn log_step(&mut self, epoch: usize, values: &[(String, f64)]) {
        if !self.step.is_multiple_of(self.every) {
            return;
        }
        let mut line = json!({ "epoch": epoch, "split": STEP, "step": self.step });
        let mut shown = format!("  step {} of {}", self.step, self.steps);
        for (name, value) in values {
            line[name.to_lowercase()] = json!(value);
            shown += &format!(", {} {}", name.to_lowercase(), short(*value));
        }
        self.append(&line);
        if !self.quiet {
            let rate = (self.step - self.session.1) as f64 / self.session.0.elapsed().as_secs_f64();
            let left = self.steps.saturating_sub(self.step) as f64 / rate;
            tell(format_args!("{shown}, {rate:.1} steps/s, {left:.0} s left"));
        }
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
        // burn-train logs once per batch, and once more at the end of an epoch with the final values.
        let is_step = training && !update.entries_numeric.iter().any(is_final);
        self.step += usize::from(is_step);
        let mut of_step = Vec::new();
        for numeric in &update.entries_numeric {
            let id = &numeric.entry.metric_id;
            let name = self
                .names
                .iter()
                .find(|(known, _)| known == id)
                .map_or("", |(_, name)| name)
                .to_string();
            // A split without batches has no final value.
            if is_final(numeric) && !self.means.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let entry = if is_final(numeric) {
                &numeric.numeric_entry
            } else {
                &numeric.running_entry
            };
            // The throughput is not a number before the second step.
            let known = |mean: &f64| name == "Loss" || mean.is_finite();
            if let Some(mean) = entry.as_ref().map(value).filter(known) {
                self.means.retain(|(known, _)| *known != name);
                self.means.push((name.clone(), mean));
            }
            let own = numeric.numeric_entry.as_ref().map(value);
            if let (true, Some(own)) = (is_step && !name.ends_with(PER_SECOND), own) {
                of_step.push((name.clone(), own));
            }
            if name == "Loss" && own.is_some_and(|own| !own.is_finite()) {
                let mut watch = self.watch.get();
                watch.bad_step.get_or_insert(self.step);
                // An evaluation has the number of the step before it.
                watch.before_training |= is_step && self.step == 1;
                drop(watch);
                self.interrupter.stop(Some(NOT_A_NUMBER));
            }
        }
        if is_step {
            self.log_step(epoch, &of_step);
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
        for (name, mean) in std::mem::take(&mut self.means) {
            let name = name.to_lowercase();
            // Speeds are left out: they differ from run to run, and the file of a resumed run must equal that of an
            // uninterrupted one.
            if name.ends_with(PER_SECOND) {
                self.watch.get().speeds.push(mean);
                continue;
            }
            if name == self.judged_by && summary.split == Split::Valid {
                self.watch.get().evaluations.push((summary.epoch_number, mean));
            }
            line[name] = json!(mean);
        }
        if !self.quiet {
            let named = line.as_object().into_iter().flatten().skip(3);
            let means: Vec<String> = named
                .filter_map(|(name, mean)| Some(format!("{name} {}", short(mean.as_f64()?))))
                .collect();
            let (round, number, split) = (self.round, summary.epoch_number, &summary.split);
            tell(format_args!("  {round} {number} {split}: {}", means.join(", ")));
        }
        self.append(&line);
        // Must be on disk before the checkpoint of the round, which depends on it.
        let synced = self.file.sync();
        self.heard(synced);
        self.clock.save();
        self.inner.log_epoch_summary(summary);
    }
}

/// Three decimals, or three significant digits for much smaller numbers, such as learning rates, and much larger ones.
fn short(value: f64) -> String {
    match value.abs() {
        size if size > 0.0 && !(0.01..1e6).contains(&size) => format!("{value:.2e}"),
        _ => format!("{value:.3}"),
    }
}
