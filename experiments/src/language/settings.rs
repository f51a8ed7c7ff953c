//! Settings of the programs that adapt language models.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum, ValueHint};
use datasets::language::{Fields, Protocol, Template};
use serde::{Deserialize, Serialize};

use crate::cli::settings::{absolute, absolute_model, check_positive};
use crate::methods::{Adapter, NONE, OwnSettings, Wing};
use crate::run::args::Execution;
use crate::run::sweep::Sweep;
use crate::train::precision::Dtype;
use crate::train::settings::Training;

/// The language model.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Model")]
pub struct Model {
    /// Language model: a Hugging Face folder (config.json, safetensors, tokenizer.json) or a hub name [default: the
    /// small model that ships with the program].
    #[arg(long, alias = "backbone", value_hint = ValueHint::AnyPath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Data type of the frozen weights in memory, and on a GPU of the activations; trained parameters, norms and losses are f32.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// Adapter folder to use instead of a new adapter: the suites evaluate it, finetune continues to train it.
    #[arg(long, value_hint = ValueHint::DirPath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
}

/// How examples become training data.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Data")]
pub struct Examples {
    /// Use only the first N training examples [default: all].
    #[arg(long, alias = "max-train-samples")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// Fraction of the training examples, taken from the end, to hold out and evaluate on.
    #[arg(long, default_value_t = 0.0)]
    pub validation: f64,
    /// Maximum tokens per example; longer examples are truncated, and their number is reported.
    #[arg(long, default_value_t = 512)]
    pub max_length: usize,
    /// Leave out examples of this many tokens or more, before --train-limit counts them [default: none].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_longer: Option<usize>,
    /// Pack as many examples into each row as fit max_length; examples do not see each other. A batch then has
    /// batch_size rows.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    pub packing: bool,
    /// Make batches of examples of similar length: less padding, but not the paper's objective, whose batches are
    /// random.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = true, action = ArgAction::Set)]
    pub group_by_length: bool,
    /// Use the mean of the batches' mean losses as the loss of a step with several batches, as code that does not count
    /// tokens does, instead of the mean over all their target tokens.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    pub mean_of_batch_means: bool,
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
    pub examples: Examples,
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

/// Defaults of the suites without --model and --data: the small model that ships with the program, on generated
/// questions.
pub const SAMPLE: &str = r#"
method = ["none", "lora", "wegeft"]
r = 16
alpha = 32.0
lora_r = 8
lora_alpha = 16.0
learning_rate = 5e-3
eval_batch_size = 50
"#;

impl Settings {
    /// Normalizes paths and names and refuses invalid settings.
    ///
    /// # Errors
    /// A value out of range, an unknown name.
    pub fn check(&mut self) -> Result<(), String> {
        // Absolute paths, so that a run folder can be resumed from any working folder.
        self.model.model = self.model.model.take().map(absolute_model).transpose()?;
        self.model.adapter = self.model.adapter.take().map(|path| absolute(&path)).transpose()?;
        let examples = &self.examples;
        check_positive(&[
            ("max_length", examples.max_length),
            ("train_limit", examples.train_limit.unwrap_or(1)),
            ("drop_longer", examples.drop_longer.unwrap_or(1)),
        ])?;
        if !(0.0..1.0).contains(&examples.validation) {
            return Err(format!(
                "field 'validation' is {}; it must be in [0, 1)",
                examples.validation
            ));
        }
        self.training.check()?;
        self.sweep.check(self.training.epochs)?;
        self.execution.check()?;
        self.adapter.check(&self.methods, Wing::Language)?;
        if examples.validation == 0.0 {
            if let Some(field) = self.training.judges() {
                return Err(format!("{field}, which needs a 'validation' above 0 to judge by"));
            }
            if self.sweep.sweep {
                return Err("field 'sweep' is true, which needs a 'validation' above 0 to judge by".into());
            }
        }
        Ok(())
    }

    /// The named methods that train something.
    pub fn trained_methods(&self) -> impl Iterator<Item = &String> {
        self.adapter.method.iter().filter(|method| *method != NONE)
    }
}

/// Data and evaluation of the suites.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
pub struct SuiteSettings {
    /// Settings that all programs share.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Settings,
    /// The data.
    #[command(flatten)]
    #[serde(flatten)]
    pub data: SuiteData,
    /// The evaluation.
    #[command(flatten)]
    #[serde(flatten)]
    pub evaluation: Evaluation,
}

/// The released versions of the suites' code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// WeGeFT's.
    New,
    /// GIFT's.
    Old,
}

/// Data of the suites.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Data")]
pub struct SuiteData {
    /// Folder with LLM-Adapters' files, `<set>/test.json` [default: the generated sample].
    #[arg(long, value_hint = ValueHint::DirPath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Test sets, separated by commas, or `all`.
    #[arg(long, alias = "sets", value_delimiter = ',', default_value = "all")]
    pub task: Vec<String>,
    /// Released code to follow for training targets and answer extraction: WeGeFT's (new) or GIFT's (old).
    #[arg(long, value_enum, default_value_t = Code::New)]
    pub protocol: Code,
    /// Training files (JSON, JSONL, CSV or parquet), separated by commas or given by several flags [default: the
    /// suite's own file in --data].
    #[arg(long, value_delimiter = ',', value_hint = ValueHint::FilePath)]
    pub train_file: Vec<PathBuf>,
    /// Use only the first N questions of each test set [default: all].
    #[arg(long, alias = "max-eval-samples")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
}

/// How questions are answered.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Evaluation")]
pub struct Evaluation {
    /// Questions per batch.
    #[arg(long, default_value_t = 16)]
    pub eval_batch_size: usize,
    /// Maximum tokens per answer.
    #[arg(long, default_value_t = 128)]
    pub max_new_tokens: usize,
    /// Number of beams; 1 means no beam search.
    #[arg(long, default_value_t = 1)]
    pub num_beams: usize,
    /// Answers per question; several answers are sampled at --temperature.
    #[arg(long, alias = "num-return-sequences", default_value_t = 1)]
    pub samples: usize,
    /// Sampling temperature, by which logits are divided; 0 always takes the most likely token.
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f64,
    /// Sample only from the most likely tokens whose total probability reaches this value; 1 for all.
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f64,
    /// Penalty on tokens that the text already contains: positive logits are divided by it, negative ones multiplied; 1
    /// for none.
    #[arg(long, default_value_t = 1.0)]
    pub repetition_penalty: f64,
    /// Never repeat a sequence of this many tokens; 0 for no such limit.
    #[arg(long, default_value_t = 0)]
    pub no_repeat_ngram_size: usize,
    /// For questions with options, also choose the most likely option.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = true, action = ArgAction::Set)]
    pub likelihood: bool,
}

impl SuiteSettings {
    /// As [`Settings::check`].
    ///
    /// # Errors
    /// A value out of range, an unknown name.
    pub fn check(&mut self) -> Result<(), String> {
        self.common.check()?;
        for path in self.data.data.iter_mut().chain(&mut self.data.train_file) {
            *path = absolute(path)?;
        }
        check_positive(&[("test_limit", self.data.test_limit.unwrap_or(1))])?;
        self.evaluation.check()
    }

    /// The protocol of the released code to follow.
    pub fn protocol(&self) -> Protocol {
        match self.data.protocol {
            Code::New => Protocol::New,
            Code::Old => Protocol::Old,
        }
    }
}

impl Evaluation {
    /// Refuses settings with which no question can be answered.
    ///
    /// # Errors
    /// A value out of range.
    pub fn check(&self) -> Result<(), String> {
        let evaluation = self;
        check_positive(&[
            ("eval_batch_size", evaluation.eval_batch_size),
            ("max_new_tokens", evaluation.max_new_tokens),
            ("num_beams", evaluation.num_beams),
            ("samples", evaluation.samples),
        ])?;
        if !(evaluation.repetition_penalty > 0.0 && evaluation.repetition_penalty.is_finite()) {
            return Err(format!(
                "field 'repetition_penalty' is {}; it must be above 0",
                evaluation.repetition_penalty
            ));
        }
        if !(evaluation.temperature.is_finite() && evaluation.temperature >= 0.0) {
            return Err(format!(
                "field 'temperature' is {}; it must be 0 or more",
                evaluation.temperature
            ));
        }
        if !(evaluation.top_p > 0.0 && evaluation.top_p <= 1.0) {
            return Err(format!(
                "field 'top_p' is {}; it must be above 0 and at most 1",
                evaluation.top_p
            ));
        }
        if evaluation.samples > 1 && evaluation.temperature == 0.0 {
            return Err("field 'samples' is above 1: all of them would be the same; give a temperature above 0".into());
        }
        if evaluation.temperature > 0.0 && evaluation.num_beams > 1 {
            return Err("field 'temperature' is above 0 and 'num_beams' above 1; leave one of them out".into());
        }
        Ok(())
    }
}

/// Settings of `finetune`.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
pub struct FinetuneSettings {
    /// Settings that all programs share.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Settings,
    /// The data.
    #[command(flatten)]
    #[serde(flatten)]
    pub data: Instructions,
}

/// Data of `finetune`.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Data")]
pub struct Instructions {
    /// Training files (JSON, JSONL, CSV or parquet), separated by commas or given by several flags.
    #[arg(long, value_delimiter = ',', value_hint = ValueHint::FilePath)]
    pub train_file: Vec<PathBuf>,
    /// Name of a field in your files, as `output=response`; repeat the flag for several fields.
    #[arg(long)]
    pub field: Vec<String>,
    /// How an instruction becomes a prompt; a system message and earlier turns stand before it.
    #[arg(long, value_enum, default_value_t = Form::Alpaca)]
    pub template: Form,
}

/// How an instruction becomes a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Stanford Alpaca's template.
    Alpaca,
    /// The instruction followed by a line break.
    Plain,
    /// The model's own chat template.
    Chat,
}

impl From<Form> for Template {
    fn from(form: Form) -> Self {
        match form {
            Form::Alpaca => Self::Alpaca,
            Form::Plain => Self::Plain,
            Form::Chat => Self::Chat,
        }
    }
}

impl FinetuneSettings {
    /// As [`Settings::check`].
    ///
    /// # Errors
    /// A value out of range, an unknown name, no training file.
    pub fn check(&mut self) -> Result<(), String> {
        self.common.check()?;
        for path in &mut self.data.train_file {
            *path = absolute(path)?;
        }
        Fields::renamed(&self.data.field).map_err(|e| format!("field 'field': {e}"))?;
        if self.data.train_file.is_empty() {
            return Err("no training file; give --train-file FILE (JSON, JSONL, CSV or parquet)".into());
        }
        match self.common.adapter.method.iter().find(|method| *method == NONE) {
            Some(method) => Err(format!("method '{method}' trains nothing; choose lora, wegeft or full")),
            None => Ok(()),
        }
    }
}
