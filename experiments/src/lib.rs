//! Tasks, runs and reports: what the programs under `src/bin` are made of.

pub mod device;
pub mod formulas;
pub mod memory;
