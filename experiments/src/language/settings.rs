//! Settings of `finetune`, `commonsense` and `arithmetic`: a TOML preset, every field of which has a flag of the same
//! name.

use std::path::PathBuf;

use datasets::language::{Fields, Protocol, Template};
use serde::{Deserialize, Serialize};
use wegeft::AdapterConfig;
use wegeft::methods::lora::LoraConfig;
use wegeft::methods::wegeft::{WegeftConfig, ZeroFactor};

use crate::language::schedule::Shape;

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
    /// Suites: which released code is followed, new (WeGeFT's) or old (GIFT's).
    pub protocol: String,
    /// none (the model as it is), lora, wegeft, full.
    pub method: Vec<String>,
    /// Adapter folder to evaluate, or to go on training from, in place of a new adapter.
    pub adapter: Option<PathBuf>,
    /// Training files (JSON, JSONL, parquet); the suite's own if empty.
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
    /// Several examples in a row of `max_length` tokens, none of which sees another: less padding.
    pub packing: bool,
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
    /// Keep only the layers' inputs for the backward pass and compute the rest again: less memory, half as much time again.
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
            packing: false,
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

impl Settings {
    /// What the programs without an argument share: the small model that ships, on generated questions.
    pub fn of_sample() -> Self {
        Self {
            method: ["none", "lora", "wegeft"].map(String::from).to_vec(),
            r: 16,
            alpha: 32.0,
            lora_r: 8,
            lora_alpha: 16.0,
            learning_rate: 5e-3,
            eval_batch_size: 50,
            ..Self::default()
        }
    }

    /// Refuses what no run can be made with.
    ///
    /// # Errors
    /// A value out of range, an unknown name.
    pub fn check(&self) -> Result<(), String> {
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
        let config = match method {
            "full" => return Ok(AdapterConfig::full()),
            "lora" => AdapterConfig::new(
                LoraConfig::new(self.lora_r)
                    .with_alpha(self.lora_alpha)
                    .with_dropout(self.lora_dropout),
            ),
            "wegeft" => AdapterConfig::new(
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
        Ok(config.with_target_modules(self.target_modules.clone()))
    }
}
