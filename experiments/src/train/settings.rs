//! Settings of a training, the same for every kind of model.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::cli::settings::{check_decay, check_learning_rate, check_positive};

/// Learning-rate schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// One rate per epoch, by the formula of the paper's vision code, with its own warm-up.
    Paper,
    /// Linear decay to 0 after the warm-up.
    Linear,
    /// Cosine decay to 0 after the warm-up.
    Cosine,
    /// Constant at the peak after the warm-up.
    Constant,
}

/// Which adapter a training keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The adapter after the last step.
    Last,
    /// The adapter of the best evaluation.
    Best,
}

/// How a training runs.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Training")]
pub struct Training {
    /// Passes over the training data.
    #[arg(long, alias = "num-train-epochs", default_value_t = 20)]
    pub epochs: usize,
    /// Examples per batch.
    #[arg(long, default_value_t = 32)]
    pub batch_size: usize,
    /// Batches per optimizer step; the gradients equal those of one batch with all their examples.
    #[arg(long, alias = "accumulation", default_value_t = 1)]
    pub gradient_accumulation_steps: usize,
    /// Peak learning rate.
    #[arg(long, alias = "lr", default_value_t = 1e-2)]
    pub learning_rate: f64,
    /// Learning-rate schedule.
    #[arg(long, alias = "lr-scheduler-type", value_enum, default_value_t = Schedule::Paper)]
    pub lr_scheduler: Schedule,
    /// Fraction of the steps for linear warm-up from 0; the paper's schedule has its own warm-up.
    #[arg(long, default_value_t = 0.1)]
    pub warmup_ratio: f64,
    /// Weight decay of matrices; biases, norms and other vectors have none.
    #[arg(long, alias = "wd", default_value_t = 1e-4)]
    pub weight_decay: f64,
    /// Maximum norm over all gradients; 0 turns clipping off.
    #[arg(long, default_value_t = 0.0)]
    pub max_grad_norm: f64,
    /// Steps between evaluations and checkpoints [default: one epoch].
    #[arg(long, help_heading = "Evaluation")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_steps: Option<usize>,
    /// Which adapter to keep; best needs held-out data.
    #[arg(long, value_enum, default_value_t = Keep::Last, help_heading = "Evaluation")]
    pub keep: Keep,
    /// Stop after this many evaluations without improvement [default: never].
    #[arg(long, help_heading = "Evaluation")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping_patience: Option<usize>,
    /// Save only the inputs of the blocks for the backward pass and recompute each block: far less memory, 1.5x the
    /// time.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = false, action = clap::ArgAction::Set)]
    pub gradient_checkpointing: bool,
    /// Maximum for the memory estimate that is checked before the start, MB [default: the free memory].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
}

impl Training {
    /// Refuses settings with which no training can run.
    ///
    /// # Errors
    /// A value out of range.
    pub fn check(&self) -> Result<(), String> {
        check_positive(&[
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("gradient_accumulation_steps", self.gradient_accumulation_steps),
            ("eval_steps", self.eval_steps.unwrap_or(1)),
            ("early_stopping_patience", self.early_stopping_patience.unwrap_or(1)),
        ])?;
        check_learning_rate("learning_rate", self.learning_rate)?;
        check_decay("weight_decay", self.weight_decay)?;
        check_decay("max_grad_norm", self.max_grad_norm)?;
        match (0.0..1.0).contains(&self.warmup_ratio) {
            true => Ok(()),
            false => Err(format!(
                "field 'warmup_ratio' is {}; it must be in [0, 1)",
                self.warmup_ratio
            )),
        }
    }

    /// The setting that needs held-out data, if there is one: keeping the best adapter or early stopping.
    pub fn judges(&self) -> Option<&'static str> {
        match (self.keep, self.early_stopping_patience) {
            (Keep::Best, _) => Some("field 'keep' is 'best'"),
            (_, Some(_)) => Some("field 'early_stopping_patience' is set"),
            _ => None,
        }
    }
}
