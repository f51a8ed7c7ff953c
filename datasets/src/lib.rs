//! Pictures with labels (the folder layout of VTAB users, the sample that ships with the repository) and language data.

pub mod digits;
pub mod folder;
pub mod images;
pub mod language;
pub mod sample;
pub mod sprites;
pub mod textures;

pub use folder::DataError;
pub use images::{Images, Task};
