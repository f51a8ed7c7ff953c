//! The programs that are no experiments.

pub mod adapter;
pub mod bench;
pub mod generate;
pub mod predict;
pub mod prepare;
pub mod pretrain;
pub mod report;
pub mod token_files;
pub mod visualize;

use crate::wegeft::{Tool, command_of, parsed, published};

/// Labels of images.
pub const PREDICT: Tool = Tool {
    name: "predict",
    command: command_of::<predict::Args>,
    run: |matches| predict::predict(&parsed(matches)?),
};

/// Continuations of prompts.
pub const GENERATE: Tool = Tool {
    name: "generate",
    command: command_of::<generate::Args>,
    run: |matches| generate::generate(&parsed(matches)?),
};

/// Work on adapter folders.
pub const ADAPTER: Tool = Tool {
    name: "adapter",
    command: command_of::<adapter::Args>,
    run: |matches| adapter::adapter(&parsed(matches)?),
};

/// Token-cluster maps.
pub const VISUALIZE: Tool = Tool {
    name: "visualize",
    command: command_of::<visualize::program::Args>,
    run: |matches| visualize::program::visualize(&parsed(matches)?),
};

/// Reports over run folders.
pub const REPORT: Tool = Tool {
    name: "report",
    command: command_of::<report::Args>,
    run: |matches| report::report(&parsed(matches)?, &published),
};

/// VTAB-1k's task folders.
pub const PREPARE: Tool = Tool {
    name: "prepare",
    command: command_of::<prepare::Args>,
    run: |matches| prepare::prepare(&parsed(matches)?),
};

/// The vision transformer that ships.
pub const PRETRAIN: Tool = Tool {
    name: "pretrain",
    command: command_of::<pretrain::vision::Args>,
    run: |matches| pretrain::vision::pretrain(&parsed(matches)?),
};

/// The language model that ships.
pub const PRETRAIN_LM: Tool = Tool {
    name: "pretrain-lm",
    command: command_of::<pretrain::language::Args>,
    run: |matches| pretrain::language::pretrain(&parsed(matches)?),
};

/// Speed of forward passes and steps.
pub const BENCH: Tool = Tool {
    name: "bench",
    command: command_of::<bench::Args>,
    run: |matches| bench::bench(&parsed(matches)?),
};
