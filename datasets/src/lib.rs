//! Pictures with labels: the layouts users have, the benchmarks as they are distributed, and the sample that ships
//! with the repository; and language data.

pub mod class_folders;
pub mod decode;
pub mod digits;
mod error;
pub mod fgvc;
pub mod folder;
pub mod glue;
pub mod images;
pub mod language;
pub mod lists;
pub mod parquet_images;
mod parquet_rows;
mod progress;
pub mod resize;
pub mod root;
pub mod sample;
mod split;
mod sprites;
pub mod steps;
pub mod texts;
pub mod textures;
pub mod vtab;

pub use error::DataError;
pub use images::{Images, Picture, Task};
pub use resize::Resize;
