//! A run folder and its trials, independent of what they train: the list of trials, their folders, and which are
//! finished.

pub mod args;
pub mod checksum;
pub mod clock;
pub mod files;
pub mod folder;
pub mod grid;
pub mod jobs;
pub mod lock;
pub mod memory;
pub mod outcome;
pub mod place;
pub mod sealed;
pub mod sealed_lines;
pub mod strays;
pub mod suite;
pub mod sweep;
pub mod trial;
pub mod whole;
