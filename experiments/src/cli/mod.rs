//! What all programs use: flags and settings, output, devices, tables.

pub mod device;
pub mod output;
pub mod program;
pub mod settings;
pub mod shipped;
pub mod table;
pub mod terminal;
