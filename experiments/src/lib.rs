//! Tasks, runs and reports: what the programs under `src/bin` are made of.

pub mod batches;
pub mod classifier;
pub mod device;
pub mod formulas;
pub mod memory;
pub mod metrics_file;
pub mod plain;
pub mod run;
pub mod schedule;
pub mod settings;
pub mod table;
