//! Flags that every experiment takes: the run folder, resuming, output. They are not part of the settings.

use std::collections::BTreeSet;
use std::path::PathBuf;

use burn::tensor::Device;
use clap::{Args, ValueHint};
use serde::{Deserialize, Serialize};

use crate::cli::device::{TOGETHER, devices, members};
use crate::cli::output::note;
use crate::run::jobs::share_out;

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
    #[arg(long, help_heading = "Output", alias = "output-dir", default_value = "runs/run", value_hint = ValueHint::DirPath)]
    pub out: PathBuf,
    /// Trainings to run at once, each in its own process [default: one per device of --device; one with --devices].
    #[arg(long)]
    pub jobs: Option<usize>,
    /// File with the token of the workers whose devices are given as ws://HOST:PORT#N [default: the variable WEGEFT_TOKEN].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub token_file: Option<PathBuf>,
    /// Trials of the run folder that this process runs; --jobs sets this for the processes that it starts.
    #[arg(long = "internal-trial", hide = true)]
    pub trial: Vec<PathBuf>,
    /// Check everything and print what would be trained, with its memory and time, but train nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Steps between progress lines in metrics.jsonl and, outside a terminal, on standard output.
    #[arg(long, help_heading = "Output", alias = "logging-steps", default_value_t = 50)]
    pub log_steps: usize,
    /// Print only results.
    #[arg(short, long, help_heading = "Output", conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more: the groups and shapes of each adapter.
    #[arg(short, long, help_heading = "Output")]
    pub verbose: bool,
}

/// Seeds and devices.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Run")]
pub struct Execution {
    /// Seeds, separated by commas: each method is trained once per seed, and tables show mean and standard deviation.
    #[arg(long, alias = "seeds", value_delimiter = ',', default_value = "42", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: Vec<u64>,
    /// Device: flex, ndarray, vulkan, cuda:1, ws://HOST:PORT#0, …; several devices, separated by commas, share the
    /// trainings; a+b is one device that splits each of its trainings, as --devices a,b does.
    #[arg(long, default_value = crate::cli::device::DEFAULT)]
    pub device: String,
    /// Devices to split each training over, instead of --device: each device takes a share of every batch. With --jobs, the
    /// devices are divided among the processes.
    #[arg(long, value_name = "DEVICE,DEVICE", value_delimiter = ',', conflicts_with = "device")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<String>>,
}

impl Execution {
    /// The devices of each process, of `jobs` of them if that is given: at least one, of at least one device each.
    pub fn processes(&self, jobs: Option<usize>) -> Vec<String> {
        let all: Vec<String> = self.device.split(',').map(|name| name.trim().to_string()).collect();
        match (&all[..], jobs) {
            ([team], Some(jobs)) => {
                let devices = members(team);
                let shares = share_out(devices.len(), jobs);
                shares.map(|places| devices[places].join(TOGETHER)).collect()
            }
            _ => all,
        }
    }

    /// The devices that the trainings of this process are split over, with autodiff; at least one.
    ///
    /// # Errors
    /// A device that there is not.
    pub fn devices(&self) -> Result<Vec<Device>, String> {
        let plain = devices(&self.processes(None)[0])?;
        Ok(plain.into_iter().map(Device::autodiff).collect())
    }

    /// True if flex computes all of it, whose operations save less for the backward pass.
    pub fn is_flex(&self) -> bool {
        self.device
            .split(',')
            .flat_map(members)
            .all(|name| name.starts_with("flex"))
    }

    /// Brings --devices into the form of --device. Refuses what no run can be made with; each seed counts once.
    ///
    /// # Errors
    /// No seed at all, no device at all.
    pub fn check(&mut self) -> Result<(), String> {
        if let Some(devices) = self.devices.take() {
            if devices.is_empty() {
                return Err("field 'devices' is empty; name at least one".into());
            }
            self.device = devices.join(TOGETHER);
        }
        let mut seen = BTreeSet::new();
        self.seed.retain(|seed| {
            let new = seen.insert(*seed);
            if !new {
                note(format_args!("seed {seed} is given more than once; it counts once"));
            }
            new
        });
        match self.seed.is_empty() {
            true => Err("field 'seed' is empty; name at least one".into()),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;
    use crate::cli::settings::FLAGS_ALONE;

    #[test]
    fn no_flag_of_a_run_is_taken_for_a_setting() {
        let command = RunArgs::augment_args(Command::new(""));
        let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let names: Vec<&str> = shown.map(|arg| arg.get_id().as_str()).collect();
        assert_eq!(names, FLAGS_ALONE);
    }
}
