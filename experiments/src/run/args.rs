//! Flags that every experiment takes: the run folder, resuming, output. They are not part of the settings.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde::{Deserialize, Serialize};

/// Where and how an experiment runs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Run")]
pub struct RunArgs {
    /// Preset, given by its name or as a TOML file; flags override its fields.
    #[arg(long, value_name = "NAME|FILE", conflicts_with = "resume", value_hint = ValueHint::FilePath)]
    pub config: Option<String>,
    /// List the presets of this program and exit.
    #[arg(long)]
    pub list_presets: bool,
    /// Continue the run in the folder --out, with the settings that it was started with.
    #[arg(long)]
    pub resume: bool,
    /// Run folder.
    #[arg(long, alias = "output-dir", default_value = "runs/run", value_hint = ValueHint::DirPath)]
    pub out: PathBuf,
    /// Trainings to run at once, each in its own process [default: one per device].
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Trials of the run folder that this process runs; --jobs sets this for the processes that it starts.
    #[arg(long, hide = true)]
    pub trial: Vec<PathBuf>,
    /// Check everything and print what would be trained, with its memory and time, but train nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Steps between progress lines in metrics.jsonl and, outside a terminal, on standard output.
    #[arg(long, alias = "logging-steps", default_value_t = 50)]
    pub log_steps: usize,
    /// Print only results.
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more: the groups and shapes of each adapter.
    #[arg(short, long)]
    pub verbose: bool,
}

/// Seeds and devices.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Run")]
pub struct Execution {
    /// Seeds, separated by commas: each method is trained once per seed, and tables show mean and standard deviation.
    #[arg(long, value_delimiter = ',', default_value = "42", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: Vec<u64>,
    /// Device: flex, ndarray, vulkan, cuda:1, …; several devices, separated by commas, share the trainings.
    #[arg(long, default_value = crate::cli::device::DEFAULT)]
    pub device: String,
}

impl Execution {
    /// The devices, at least one.
    pub fn devices(&self) -> Vec<String> {
        self.device.split(',').map(|name| name.trim().to_string()).collect()
    }

    /// Refuses invalid settings and removes duplicate seeds.
    ///
    /// # Errors
    /// An empty list of seeds.
    pub fn check(&mut self) -> Result<(), String> {
        let mut seen = Vec::new();
        self.seed.retain(|seed| {
            !seen.contains(seed) && {
                seen.push(*seed);
                true
            }
        });
        match self.seed.is_empty() {
            true => Err("field 'seed' is empty; name at least one".into()),
            false => Ok(()),
        }
    }
}
