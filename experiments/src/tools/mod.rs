//! The programs that are not experiments.

pub mod adapter;
pub mod bench;
pub mod chat;
pub mod generate;
pub mod predict;
pub mod prepare;
pub mod pretrain;
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
    /// Runs it, with the published rows of the experiments.
    pub run: fn(&ArgMatches, Known) -> Result<(), String>,
}

fn parsed<A: Parser>(matches: &ArgMatches) -> Result<A, String> {
    A::from_arg_matches(matches).map_err(|e| e.to_string())
}

/// Predicts labels of images.
pub const PREDICT: Tool = Tool {
    name: "predict",
    command: predict::Args::command,
    run: |matches, _| predict::predict(&parsed(matches)?),
};

/// Continues prompts.
pub const GENERATE: Tool = Tool {
    name: "generate",
    command: generate::Args::command,
    run: |matches, _| generate::generate(&parsed(matches)?),
};

/// Chats with a model.
pub const CHAT: Tool = Tool {
    name: "chat",
    command: chat::Args::command,
    run: |matches, _| chat::chat(&parsed(matches)?),
};

/// Works on adapter folders.
pub const ADAPTER: Tool = Tool {
    name: "adapter",
    command: adapter::Args::command,
    run: |matches, _| adapter::adapter(&parsed(matches)?),
};

/// Draws token-cluster maps.
pub const VISUALIZE: Tool = Tool {
    name: "visualize",
    command: visualize::program::Args::command,
    run: |matches, _| visualize::program::visualize(&parsed(matches)?),
};

/// Makes reports on run folders.
pub const REPORT: Tool = Tool {
    name: "report",
    command: report::Args::command,
    run: |matches, known| report::report(&parsed(matches)?, known),
};

/// Makes VTAB-1k's task folders.
pub const PREPARE: Tool = Tool {
    name: "prepare",
    command: prepare::Args::command,
    run: |matches, _| prepare::prepare(&parsed(matches)?),
};

/// Makes the vision transformer that ships with the program.
pub const PRETRAIN: Tool = Tool {
    name: "pretrain",
    command: pretrain::vision::Args::command,
    run: |matches, _| pretrain::vision::pretrain(&parsed(matches)?),
};

/// Makes the language model that ships with the program.
pub const PRETRAIN_LM: Tool = Tool {
    name: "pretrain-lm",
    command: pretrain::language::Args::command,
    run: |matches, _| pretrain::language::pretrain(&parsed(matches)?),
};

/// Measures the speed of forward passes and steps.
pub const BENCH: Tool = Tool {
    name: "bench",
    command: bench::Args::command,
    run: |matches, _| bench::bench(&parsed(matches)?),
};
