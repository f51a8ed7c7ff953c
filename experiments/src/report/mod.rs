//! Reports: of one run folder, and of any set of them beside the published numbers.

mod benchmarks;
mod formats;
mod page;
pub mod program;
mod published;
mod rows;
pub(crate) mod run_folder;
mod table;

pub use run_folder::write;
