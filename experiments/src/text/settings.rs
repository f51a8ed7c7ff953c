//! Settings of the programs that adapt text classifiers.

use clap::{ArgAction, Args};
use serde::{Deserialize, Serialize};

use crate::cli::settings::{absolute, absolute_model, check_positive};
use crate::language::settings::Model;
use crate::methods::{Adapter, OwnSettings, Wing};
use crate::run::args::Execution;
use crate::run::sweep::Sweep;
use crate::train::settings::Training;

/// How texts become training data.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Data")]
pub struct Texts {
    /// Use only the first N training texts [default: all].
    #[arg(long, alias = "max-train-samples")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// Fraction of the training texts to hold out for tuning and for choosing the epoch [default: 0, which uses the
    /// validation texts that are also reported, as GLUE's published numbers do].
    #[arg(long, default_value_t = 0.0, hide_default_value = true)]
    pub validation: f64,
    /// Maximum tokens per text or pair; longer ones are truncated, and their number is reported.
    #[arg(long, default_value_t = 128)]
    pub max_length: usize,
    /// Make batches of texts of similar length: less padding, but the paper's batches are random.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = true, action = ArgAction::Set)]
    pub group_by_length: bool,
    /// Apply the dropout of the model's config.json during training (encoders).
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = true, action = ArgAction::Set)]
    pub dropout: bool,
    /// Texts per batch in evaluation.
    #[arg(long, default_value_t = 64)]
    pub eval_batch_size: usize,
}

/// The effective settings that all these programs share.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
pub struct Settings {
    /// The model.
    #[command(flatten)]
    #[serde(flatten)]
    pub model: Model,
    /// Its training data.
    #[command(flatten)]
    #[serde(flatten)]
    pub texts: Texts,
    /// The adapters.
    #[command(flatten)]
    #[serde(flatten)]
    pub adapter: Adapter,
    /// How they are trained.
    #[command(flatten)]
    #[serde(flatten)]
    pub training: Training,
    /// How they are tuned.
    #[command(flatten)]
    #[serde(flatten)]
    pub sweep: Sweep,
    /// Seeds and devices.
    #[command(flatten)]
    #[serde(flatten)]
    pub execution: Execution,
    /// `[methods.NAME]`: settings of one method that override those of all methods.
    #[arg(skip)]
    #[serde(default)]
    pub methods: OwnSettings,
}

/// Additional help text of these programs.
pub const MORE: &str = "\
Models are encoders (BERT, RoBERTa, XLM-R, DistilBERT, ELECTRA, DeBERTa v2 and v3, ModernBERT) or decoders (Llama and \
similar models; the head reads their last token). Every method trains the whole head, including any parts of it that \
the model's files lack. Without --target-modules, the projections of queries and values are adapted, whatever their \
names in the model.

The run folder contains config.toml, summary.json, report.html and, for each task and method, metrics.jsonl, \
checkpoints/, adapter/ (Hugging Face PEFT's layout, SEQ_CLS), samples.jsonl and predictions. Running the same command \
again continues the run.";

impl Settings {
    /// Normalizes paths and names and refuses invalid settings.
    ///
    /// # Errors
    /// A value out of range, an unknown name.
    pub fn check(&mut self) -> Result<(), String> {
        // Absolute paths, so that a run folder can be resumed from any working folder.
        self.model.model = self.model.model.take().map(absolute_model).transpose()?;
        self.model.adapter = self.model.adapter.take().map(|path| absolute(&path)).transpose()?;
        let texts = &self.texts;
        check_positive(&[
            ("max_length", texts.max_length),
            ("train_limit", texts.train_limit.unwrap_or(1)),
            ("eval_batch_size", texts.eval_batch_size),
        ])?;
        if !(0.0..1.0).contains(&texts.validation) {
            return Err(format!(
                "field 'validation' is {}; it must be in [0, 1)",
                texts.validation
            ));
        }
        self.training.check()?;
        self.sweep.check(self.training.epochs)?;
        self.execution.check()?;
        self.adapter.check(&self.methods, Wing::Text)
    }
}
