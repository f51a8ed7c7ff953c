//! VTAB-1k: the 19 tasks, and readers for the files of TFDS and of the datasets' authors.

pub mod dsprites;
pub mod example;
pub mod labels;
mod lock;
pub mod prepare;
mod prepared;
pub mod tasks;
pub mod tfds;
pub mod tfrecord;
mod verify;

pub use prepare::Options;
pub use prepared::{Checksum, Prepared};
pub use tasks::{TASKS, TaskInfo, group, info};
pub use verify::verify;
