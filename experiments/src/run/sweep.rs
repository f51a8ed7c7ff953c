//! Settings of a sweep, the same for every kind of model.

use clap::{ArgAction, Args};
use serde::{Deserialize, Serialize};

use crate::cli::settings::{check_decay, check_learning_rate};

/// How learning rate and weight decay are tuned before the final training.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Sweep")]
pub struct Sweep {
    /// First tune learning rate and weight decay of every task and method on held-out data.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    pub sweep: bool,
    /// Learning rates of the grid, separated by commas [default: the paper's for images; half, once and twice
    /// --learning-rate for text].
    #[arg(long, value_delimiter = ',')]
    pub sweep_lr: Vec<f64>,
    /// Weight decays of the grid, separated by commas [default: the paper's for images; --weight-decay for text].
    #[arg(long, value_delimiter = ',')]
    pub sweep_weight_decay: Vec<f64>,
    /// Epochs after which tuning runs stop; their schedule remains that of --epochs [default: all].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tune_epochs: Option<usize>,
}

impl Sweep {
    /// Refuses settings that cannot be tuned.
    ///
    /// # Errors
    /// A rate or decay out of range; more epochs than the training has, or none.
    pub fn check(&self, epochs: usize) -> Result<(), String> {
        let mut rates = self.sweep_lr.iter();
        rates.try_for_each(|rate| check_learning_rate("sweep_lr", *rate))?;
        let mut decays = self.sweep_weight_decay.iter();
        decays.try_for_each(|decay| check_decay("sweep_weight_decay", *decay))?;
        match self.tune_epochs {
            Some(0) => Err("field 'tune_epochs' is 0; it must be at least 1".into()),
            Some(tune) if tune > epochs => Err(format!(
                "field 'tune_epochs' is above 'epochs' ({epochs}), whose schedule the tuning runs keep"
            )),
            _ => Ok(()),
        }
    }
}
