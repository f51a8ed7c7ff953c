//! Settings of `finetune`, `commonsense` and `arithmetic`: a TOML preset, every field of which has a flag of the same
//! name.

use std::path::{Path, PathBuf};

use datasets::language::{Fields, Protocol, Template};
use serde::{Deserialize, Serialize};
use wegeft::methods::lora::LoraConfig;
use wegeft::methods::wegeft::{WegeftConfig, ZeroFactor};
use wegeft::{AdapterConfig, Method};

use crate::language::schedule::Shape;
use crate::settings::read;

/// The effective settings of a run folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Language model: folder or hub name; the small one that ships if absent.
    pub model: Option<String>,
    /// Type of the weights in memory: f32, bf16 or f16.
    pub dtype: String,
    /// Suites: folder with LLM-Adapters' files; the generated sample if absent.
    pub data: Option<PathBuf>,
    /// Suites: test sets, or `all`.
    pub sets: Vec<String>,
    /// Suites: which released code is followed, new or old (protocol section 4).
    pub protocol: String,
    /// none (the model as it is), lora, wegeft, full.
    pub method: Vec<String>,
    /// Adapter folder to evaluate, or to go on training from, in place of a new adapter.
    pub adapter: Option<PathBuf>,
    /// Training files (JSON, JSONL); the suite's own if empty.
    pub train_file: Vec<PathBuf>,
    /// finetune: names of the fields in the files, `output=response`.
    pub field: Vec<String>,
    /// finetune: how an instruction becomes a prompt: alpaca, plain, chat.
    pub template: String,
    /// At most so many training examples, the first ones.
    pub train_limit: Option<usize>,
    /// At most so many questions of each test set, the first ones.
    pub test_limit: Option<usize>,
    /// Part of the training examples, from the end, that is held out and evaluated on.
    pub validation: f64,
    /// Modules that LoRA and WeGeFT adapt.
    pub target_modules: Vec<String>,
    /// Rank of WeGeFT.
    pub r: usize,
    /// Numerator of WeGeFT's scale alpha / r.
    pub alpha: f64,
    /// WeGeFT's dropout on the elements of W, in training.
    pub weight_dropout: f64,
    /// Rank of LoRA.
    pub lora_r: usize,
    /// Numerator of LoRA's scale alpha / r.
    pub lora_alpha: f64,
    /// LoRA's dropout on what A reads, in training.
    pub lora_dropout: f64,
    /// Epochs.
    pub epochs: usize,
    /// Sequences a batch.
    pub batch_size: usize,
    /// Batches a step.
    pub accumulation: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// linear, cosine or constant, after the warm-up.
    pub lr_scheduler: String,
    /// Part of the steps that are warm-up.
    pub warmup_ratio: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Greatest norm over all gradients; 0 does not clip.
    pub max_grad_norm: f64,
    /// Tokens of an example; what is longer is cut.
    pub max_length: usize,
    /// Steps between evaluations and checkpoints; an epoch if absent.
    pub eval_steps: Option<usize>,
    /// Which adapter is kept: last, or best (of the lowest validation loss).
    pub keep: String,
    /// Keep only the layers' inputs for the backward pass and compute the rest again: less memory, a third more time.
    pub gradient_checkpointing: bool,
    /// Most memory that the estimate before the start may come to, MB; the machine's free memory if absent.
    pub memory_limit: Option<u64>,
    /// Suites: questions that are answered at a time.
    pub eval_batch_size: usize,
    /// Suites: tokens of an answer at most.
    pub max_new_tokens: usize,
    /// Suites: beams; 1 is greedy.
    pub num_beams: usize,
    /// commonsense: also choose the option of the greatest likelihood.
    pub likelihood: bool,
    /// Seed of factors, order and dropout.
    pub seed: u64,
    /// Device.
    pub device: String,
}

impl Default for Settings {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect();
        Self {
            model: None,
            dtype: "f32".into(),
            data: None,
            sets: words(&["all"]),
            protocol: "new".into(),
            method: words(&["wegeft"]),
            adapter: None,
            train_file: Vec::new(),
            field: Vec::new(),
            template: "alpaca".into(),
            train_limit: None,
            test_limit: None,
            validation: 0.0,
            target_modules: words(&["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]),
            r: 64,
            alpha: 128.0,
            weight_dropout: 0.0,
            lora_r: 16,
            lora_alpha: 32.0,
            lora_dropout: 0.0,
            epochs: 3,
            batch_size: 16,
            accumulation: 1,
            learning_rate: 4e-4,
            lr_scheduler: "linear".into(),
            warmup_ratio: 0.1,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            max_length: 512,
            eval_steps: None,
            keep: "last".into(),
            gradient_checkpointing: false,
            memory_limit: None,
            eval_batch_size: 16,
            max_new_tokens: 128,
            num_beams: 1,
            likelihood: true,
            seed: 42,
            device: crate::device::DEFAULT.into(),
        }
    }
}

/// What every language program takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Preset (TOML); flags override its fields.
    #[arg(long, conflicts_with = "resume")]
    pub config: Option<PathBuf>,
    /// Go on with the run folder given by --out, with the settings it was made with.
    #[arg(long)]
    pub resume: bool,
    /// Run folder [default: runs/ and the program's name].
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// The settings, one flag a field.
    #[command(flatten)]
    pub flags: Flags,
}

/// One flag per field of [`Settings`].
#[derive(Debug, Default, clap::Args, Serialize)]
pub struct Flags {
    /// Language model: Hugging Face folder (config.json, safetensors, tokenizer.json) or hub name
    /// [default: the small one that ships].
    #[arg(long)]
    model: Option<String>,
    /// Type of the weights in memory: f32, bf16 or f16 [default: f32].
    #[arg(long)]
    dtype: Option<String>,
    /// Suites: folder with LLM-Adapters' files, `<set>/test.json` [default: the generated sample].
    #[arg(long)]
    data: Option<PathBuf>,
    /// Suites: test sets, separated by commas, or `all` [default: all].
    #[arg(long, value_delimiter = ',')]
    sets: Option<Vec<String>>,
    /// Suites: new (WeGeFT's code) or old (GIFT's) targets and extraction [default: new].
    #[arg(long)]
    protocol: Option<String>,
    /// Methods, separated by commas: none (the model as it is), lora, wegeft, full
    /// [default: wegeft; the samples: none,lora,wegeft].
    #[arg(long, value_delimiter = ',')]
    method: Option<Vec<String>>,
    /// Suites: evaluate this adapter folder, train nothing. finetune: start from it.
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// Training files, JSON or JSONL, separated by commas or given several times
    /// [default: the suite's own under --data].
    #[arg(long, value_delimiter = ',')]
    train_file: Option<Vec<PathBuf>>,
    /// finetune: name of a field in the files, as `output=response`; several times for several fields.
    #[arg(long)]
    field: Option<Vec<String>>,
    /// finetune: how an instruction becomes a prompt: alpaca, plain, chat [default: alpaca].
    #[arg(long)]
    template: Option<String>,
    /// At most so many training examples [default: all].
    #[arg(long)]
    train_limit: Option<usize>,
    /// At most so many questions of each test set [default: all].
    #[arg(long)]
    test_limit: Option<usize>,
    /// Part of the training examples, from the end, that is held out and evaluated on [default: 0].
    #[arg(long, allow_negative_numbers = true)]
    validation: Option<f64>,
    /// Modules that LoRA and WeGeFT adapt, separated by commas [default: q_proj,k_proj,v_proj,up_proj,down_proj].
    #[arg(long, value_delimiter = ',')]
    target_modules: Option<Vec<String>>,
    /// Rank of WeGeFT [default: 64].
    #[arg(long)]
    r: Option<usize>,
    /// Numerator of WeGeFT's scale alpha / r [default: 128].
    #[arg(long, allow_negative_numbers = true)]
    alpha: Option<f64>,
    /// WeGeFT's dropout on the elements of W, in training; the paper's is 0.1 [default: 0].
    #[arg(long, allow_negative_numbers = true)]
    weight_dropout: Option<f64>,
    /// Rank of LoRA [default: 16].
    #[arg(long)]
    lora_r: Option<usize>,
    /// Numerator of LoRA's scale alpha / r [default: 32].
    #[arg(long, allow_negative_numbers = true)]
    lora_alpha: Option<f64>,
    /// LoRA's dropout on what A reads, in training [default: 0].
    #[arg(long, allow_negative_numbers = true)]
    lora_dropout: Option<f64>,
    /// Epochs [default: 3].
    #[arg(long)]
    epochs: Option<usize>,
    /// Sequences a batch [default: 16].
    #[arg(long)]
    batch_size: Option<usize>,
    /// Batches a step: their gradients are those of one batch of all [default: 1].
    #[arg(long)]
    accumulation: Option<usize>,
    /// Peak learning rate [default: 0.0004].
    #[arg(long, allow_negative_numbers = true)]
    learning_rate: Option<f64>,
    /// linear, cosine or constant, after the warm-up [default: linear].
    #[arg(long)]
    lr_scheduler: Option<String>,
    /// Part of the steps that are warm-up [default: 0.1].
    #[arg(long, allow_negative_numbers = true)]
    warmup_ratio: Option<f64>,
    /// Weight decay [default: 0].
    #[arg(long, allow_negative_numbers = true)]
    weight_decay: Option<f64>,
    /// Greatest norm over all gradients; 0 does not clip [default: 1].
    #[arg(long, allow_negative_numbers = true)]
    max_grad_norm: Option<f64>,
    /// Tokens of an example; what is longer is cut, and counted [default: 512].
    #[arg(long)]
    max_length: Option<usize>,
    /// Steps between evaluations and checkpoints [default: an epoch].
    #[arg(long)]
    eval_steps: Option<usize>,
    /// Which adapter is kept: last, or best (of the lowest validation loss) [default: last].
    #[arg(long)]
    keep: Option<String>,
    /// Keep only the layers' inputs and compute the rest again in the backward pass [default: false].
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    gradient_checkpointing: Option<bool>,
    /// Most memory that the estimate before the start may come to, MB [default: what is free].
    #[arg(long)]
    memory_limit: Option<u64>,
    /// Suites: questions that are answered at a time [default: 16].
    #[arg(long)]
    eval_batch_size: Option<usize>,
    /// Suites: tokens of an answer at most [default: 128; commonsense 32].
    #[arg(long)]
    max_new_tokens: Option<usize>,
    /// Suites: beams; 1 is greedy [default: 1].
    #[arg(long)]
    num_beams: Option<usize>,
    /// commonsense: also choose the option of the greatest likelihood [default: true].
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    likelihood: Option<bool>,
    /// Seed [default: 42].
    #[arg(long)]
    seed: Option<u64>,
    /// flex, ndarray, vulkan, cuda:1, … [default: flex].
    #[arg(long)]
    device: Option<String>,
}

impl Args {
    /// The run folder of `program`.
    pub fn out(&self, program: &str) -> PathBuf {
        self.out.clone().unwrap_or_else(|| Path::new("runs").join(program))
    }

    /// The preset (or, with --resume, the run folder's settings; or `default`) with the flags on top, checked.
    ///
    /// # Errors
    /// A preset that cannot be read, an unknown key, a value out of range.
    pub fn settings(&self, program: &str, default: impl FnOnce(&Self) -> Settings) -> Result<Settings, String> {
        let base = match (&self.config, self.resume) {
            (Some(path), _) => read(path)?,
            (None, true) => read(&self.out(program).join("config.toml"))?,
            (None, false) => default(self),
        };
        let mut table = toml::Table::try_from(&base).map_err(|e| e.to_string())?;
        table.extend(toml::Table::try_from(&self.flags).map_err(|e| e.to_string())?);
        let settings: Settings = table.try_into().map_err(|e: toml::de::Error| e.message().to_string())?;
        settings.check()?;
        Ok(settings)
    }

    /// True if neither a model nor data are named: the samples' settings apply.
    pub fn is_sample(&self) -> bool {
        self.flags.model.is_none() && self.flags.data.is_none()
    }
}

impl Settings {
    /// What the programs without an argument share: the small model that ships, on generated questions.
    pub fn of_sample() -> Self {
        Self {
            method: ["none", "lora", "wegeft"].map(String::from).to_vec(),
            r: 32,
            alpha: 64.0,
            lora_r: 8,
            lora_alpha: 16.0,
            epochs: 1,
            learning_rate: 5e-3,
            eval_batch_size: 50,
            ..Self::default()
        }
    }

    fn check(&self) -> Result<(), String> {
        let positive = [
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("accumulation", self.accumulation),
            ("r", self.r),
            ("lora_r", self.lora_r),
            ("max_length", self.max_length),
            ("eval_steps", self.eval_steps.unwrap_or(1)),
            ("eval_batch_size", self.eval_batch_size),
            ("max_new_tokens", self.max_new_tokens),
            ("num_beams", self.num_beams),
            ("train_limit", self.train_limit.unwrap_or(1)),
            ("test_limit", self.test_limit.unwrap_or(1)),
        ];
        if let Some((field, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("field '{field}' is 0; it must be at least 1"));
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return Err(format!(
                "field 'learning_rate' is {}; it must be above 0",
                self.learning_rate
            ));
        }
        for (field, value) in [
            ("weight_decay", self.weight_decay),
            ("max_grad_norm", self.max_grad_norm),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(format!("field '{field}' is {value}; it must be 0 or more"));
            }
        }
        for (field, value) in [
            ("validation", self.validation),
            ("warmup_ratio", self.warmup_ratio),
            ("weight_dropout", self.weight_dropout),
            ("lora_dropout", self.lora_dropout),
        ] {
            if !(0.0..1.0).contains(&value) {
                return Err(format!("field '{field}' is {value}; it must be in [0, 1)"));
            }
        }
        if !matches!(self.keep.as_str(), "last" | "best") {
            return Err(format!("field 'keep' is '{}'; choose last or best", self.keep));
        }
        if self.keep == "best" && self.validation == 0.0 {
            return Err("field 'keep' is 'best', which needs a 'validation' above 0 to judge by".into());
        }
        if self.method.is_empty() {
            return Err("field 'method' is empty; choose none, lora, wegeft or full".into());
        }
        for method in self.method.iter().filter(|method| *method != "none") {
            self.adapter_config(method)?;
        }
        Shape::named(&self.lr_scheduler)?;
        Protocol::named(&self.protocol)?;
        Template::named(&self.template)?;
        Fields::renamed(&self.field).map_err(|e| format!("field 'field': {e}"))?;
        Ok(())
    }

    /// The adapter of that method name. WeGeFT's phi starts at zero, as in the reference's language code.
    ///
    /// # Errors
    /// An unknown method.
    pub fn adapter_config(&self, method: &str) -> Result<AdapterConfig, String> {
        let method = match method {
            "full" => return Ok(AdapterConfig::new(Method::Full)),
            "lora" => Method::Lora(
                LoraConfig::new(self.lora_r)
                    .with_alpha(self.lora_alpha)
                    .with_dropout(self.lora_dropout),
            ),
            "wegeft" => Method::Wegeft(
                WegeftConfig::new(self.r)
                    .with_alpha(self.alpha)
                    .with_zero_factor(ZeroFactor::Phi)
                    .with_weight_dropout(self.weight_dropout),
            ),
            other => {
                return Err(format!(
                    "method '{other}' is unknown; choose none, lora, wegeft or full"
                ));
            }
        };
        Ok(AdapterConfig::new(method).with_target_modules(self.target_modules.clone()))
    }
}
