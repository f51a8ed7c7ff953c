//! What all programs use: flags and settings, output, devices, tables.

pub mod device;
pub mod interrupt;
pub mod model_folder;
pub mod output;
pub mod program;
#[cfg(feature = "remote")]
pub mod remote;
#[cfg(not(feature = "remote"))]
#[path = "no_remote.rs"]
pub mod remote;
pub mod settings;
pub mod shipped;
pub mod table;
pub mod terminal;
