//! Reports on one run folder, or on any number of them with the published numbers.

pub mod agreement;
pub mod benchmarks;
pub mod formats;
mod image_page;
pub mod layout;
pub mod page;
pub mod plots;
pub mod published;
pub mod rows;
pub mod run_folder;
pub mod suite_tables;
pub mod table;
pub mod terminal;
mod text_page;
pub mod text_tables;
mod ticks;
