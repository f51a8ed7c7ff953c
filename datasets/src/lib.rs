//! Labelled images: users' own layouts, the benchmarks as they are distributed, and the sample that ships with the
//! repository; also language data.

pub mod class_folders;
mod cmyk;
pub mod dataset;
pub mod decode;
mod error;
pub mod fgvc;
pub mod folder;
mod gif_pixels;
pub mod glue;
mod guard;
pub mod image_files;
pub mod image_tables;
pub mod images;
mod in_flight;
mod jpeg;
mod jpeg_pixels;
pub mod language;
pub mod lists;
mod orientation;
mod packed;
pub mod parquet_images;
mod parquet_pages;
mod parquet_rows;
mod paths;
mod png;
mod progress;
pub mod resize;
pub mod root;
pub mod sample;
mod split;
pub mod steps;
pub mod text_file;
pub mod texts;
mod tiff;
mod tiff_jpeg;
mod tiff_parts;
mod tiff_pixels;
pub mod vtab;
mod webp;

pub use decode::Decoder;
pub use error::DataError;
pub use images::{ImageSource, Images, Task};
pub use resize::Resize;
