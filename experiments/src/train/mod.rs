//! Training of any adapted model: one trainer on one data stream.

pub mod agreement;
pub mod between;
pub mod checkpoints;
pub mod clipping;
pub mod dashboard;
pub mod devices;
pub mod estimate;
pub mod health;
pub mod launch;
pub mod memory_log;
pub mod metrics_file;
pub mod plain;
pub mod precision;
pub mod ranks;
pub mod recompute;
pub mod schedule;
pub mod score;
pub mod settings;
pub mod step;
pub mod stream;
pub mod tensors;
pub mod throughput;
pub mod traffic;
pub mod trainer;
pub mod vector;
pub mod watch;
