//! One program per experiment, and further tools. In reading order:
//!
//! - [`cli`]: flags and settings, output, devices, tables
//! - [`run`]: a run folder and its trials, whatever they train
//! - [`train`]: the training of any adapted model
//! - [`methods`]: every method, for both wings
//! - [`lab`]: what the wings share
//! - [`sandbox`]: runs untrusted programs
//! - [`vision`], [`language`] and [`text`]: data, objective and evaluation of each kind of model
//! - [`report`]: tables, plots and pages
//! - [`suites`]: the experiments, one file each
//! - [`tools`]: the other programs
//! - [`wegeft`]: all of them in one command
//!
//! Later modules depend on earlier ones, never the other way round.

pub mod cli;
pub mod lab;
pub mod language;
pub mod methods;
pub mod report;
pub mod run;
pub mod sandbox;
pub mod suites;
pub mod text;
pub mod tools;
pub mod train;
pub mod vision;
pub mod wegeft;

use suites::experiment::Experiment;
use tools::Tool;

/// The experiments: one file each, and one line here.
pub const EXPERIMENTS: &[&dyn Experiment] = &[
    &suites::vtab::Vtab,
    &suites::fgvc::Fgvc,
    &suites::finetune::Finetune,
    &suites::commonsense::Commonsense,
    &suites::arithmetic::Arithmetic,
    &suites::gsm8k::Gsm8k,
    &suites::metamath::MetaMath,
    &suites::glue::Glue,
    &suites::classify::Classify,
    &suites::code::Code,
    &suites::instruct::Instruct,
];

/// The other programs.
pub const TOOLS: &[Tool] = &[
    tools::PREDICT,
    tools::GENERATE,
    tools::CHAT,
    tools::ADAPTER,
    tools::VISUALIZE,
    tools::REPORT,
    tools::PREPARE,
    tools::PRETRAIN,
    tools::PRETRAIN_LM,
    tools::BENCH,
    tools::WORKER,
];
