//! GLUE (Wang et al. 2018, arXiv 1804.07461): its nine tasks from its own TSV files or from Hugging Face parquet, its
//! metrics, and predictions in the format that its server accepts.

pub mod metrics;
mod read;
mod submission;
mod tasks;

pub use read::{GlueItem, GlueSplit, Part, files, read};
pub use submission::write_predictions;
pub use tasks::{GlueTask, Label, Metric, TASKS, task};
