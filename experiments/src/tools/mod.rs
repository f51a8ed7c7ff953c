//! The programs that are not experiments.

pub mod adapter;
pub mod bench;
pub mod chat;
mod flags;
pub mod generate;
pub mod predict;
pub mod prepare;
pub mod pretrain;
mod prompts;
pub mod report;
pub mod token_files;
pub mod visualize;

use clap::{ArgMatches, Command, CommandFactory, Parser};

use crate::report::table::Known;

/// A program that is not an experiment.
pub struct Tool {
    /// Its name: subcommand and thin binary.
    pub name: &'static str,
    /// Its flags.
    pub command: fn() -> Command,
    /// Two or three commands, one per line.
    pub examples: &'static str,
    /// Runs it, with the published rows of the experiments.
    pub run: fn(&ArgMatches, Known) -> Result<(), String>,
}

impl Tool {
    /// Its command.
    pub fn command(&self) -> Command {
        flags::grouped((self.command)().name(self.name))
    }
}

fn parsed<A: Parser>(matches: &ArgMatches) -> Result<A, String> {
    A::from_arg_matches(matches).map_err(|e| e.to_string())
}

/// Predicts labels of images.
pub const PREDICT: Tool = Tool {
    name: "predict",
    command: predict::Args::command,
    examples: "predict photo.jpg --adapter runs/mine/pets/wegeft/adapter\npredict --labels pets/test.txt --adapter runs/mine/pets/wegeft/adapter --json",
    run: |matches, _| predict::predict(&parsed(matches)?),
};

/// Continues prompts.
pub const GENERATE: Tool = Tool {
    name: "generate",
    command: generate::Args::command,
    examples: "generate --prompt \"Count on from 7.\"\ngenerate --model org/name --chat --prompt \"Name three primes.\" --dtype bf16\ngenerate --model org/name --adapter runs/mine/wegeft/adapter --prompts prompts.txt --json",
    run: |matches, _| generate::generate(&parsed(matches)?),
};

/// Chats with a model.
pub const CHAT: Tool = Tool {
    name: "chat",
    command: chat::Args::command,
    examples: "chat --model HuggingFaceTB/SmolLM2-135M-Instruct --dtype bf16\nchat --model org/name --adapter runs/mine/wegeft/adapter",
    run: |matches, _| chat::chat(&parsed(matches)?),
};

/// Works on adapter folders.
pub const ADAPTER: Tool = Tool {
    name: "adapter",
    command: adapter::Args::command,
    examples: "adapter inspect runs/mine/wegeft/adapter\nadapter diff runs/mine/wegeft/adapter runs/mine/lora/adapter --model org/name\nadapter merge runs/mine/wegeft/adapter --out merged\nadapter export-lora runs/mine/wegeft/adapter --out lora\nadapter convert runs/mine/lora/adapter --out wegeft --r 16",
    run: |matches, _| adapter::adapter(&parsed(matches)?),
};

/// Draws token-cluster maps.
pub const VISUALIZE: Tool = Tool {
    name: "visualize",
    command: visualize::program::Args::command,
    examples: "visualize photo.jpg --adapter runs/vtab/textures/wegeft/adapter\nvisualize --task textures --adapter runs/vtab/textures/wegeft/adapter --count 8",
    run: |matches, _| visualize::program::visualize(&parsed(matches)?),
};

/// Makes reports on run folders.
pub const REPORT: Tool = Tool {
    name: "report",
    command: report::Args::command,
    examples: "report runs/vtab\nreport runs/one runs/two --out runs/compared",
    run: |matches, known| report::report(&parsed(matches)?, known),
};

/// Makes VTAB-1k's task folders.
pub const PREPARE: Tool = Tool {
    name: "prepare",
    command: prepare::Args::command,
    examples: "prepare --tfds ~/tensorflow_datasets --out vtab-1k\nprepare --tfds ~/tensorflow_datasets --out vtab-1k --task cifar,dtd",
    run: |matches, _| prepare::prepare(&parsed(matches)?),
};

/// Makes the vision transformer that ships with the program.
pub const PRETRAIN: Tool = Tool {
    name: "pretrain",
    command: pretrain::vision::Args::command,
    examples: "pretrain --steps 300 --out runs/small\npretrain --d-model 192 --depth 6",
    run: |matches, _| pretrain::vision::pretrain(&parsed(matches)?),
};

/// Makes the language model that ships with the program.
pub const PRETRAIN_LM: Tool = Tool {
    name: "pretrain-lm",
    command: pretrain::language::Args::command,
    examples: "pretrain-lm --steps 300 --out runs/small-lm\npretrain-lm --d-model 192 --depth 6",
    run: |matches, _| pretrain::language::pretrain(&parsed(matches)?),
};

/// Measures the speed of forward passes and steps.
pub const BENCH: Tool = Tool {
    name: "bench",
    command: bench::Args::command,
    examples: "bench --workload vit-s-step --method lora,wegeft --rounds 5\nbench --workload lm-decode --model org/name --dtype bf16",
    run: |matches, _| bench::bench(&parsed(matches)?),
};
