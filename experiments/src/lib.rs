//! Tasks, runs and reports: what the programs under `src/bin` are made of.

pub mod adapted_lm;
pub mod batches;
pub mod checkpoints;
pub mod classifier;
pub mod ctrl_c;
pub mod description;
pub mod device;
pub mod formulas;
pub mod language;
pub mod generate;
pub mod generation;
pub mod memory;
pub mod metrics_file;
pub mod plain;
pub mod plots;
pub mod predict;
pub mod report;
pub mod run;
pub mod samples;
pub mod schedule;
pub mod settings;
pub mod table;
pub mod token_files;
pub mod vtab;
