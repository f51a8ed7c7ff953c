//! Durable, atomic writing of files.
//!
//! A file is written under a temporary name, synced (`fsync`) and renamed, and its folder is synced. After a kill, a full
//! disk or a power loss, a reader finds either the old content or the new one, never a part, and whatever was reported as
//! written is there. Lines are appended one write at a time and are durable once [`File::sync`] has returned; a kill
//! leaves complete lines and at most one torn line.
//!
//! Several files that belong together are made in a [`Staging`] and replace the old ones as one. A mark beside them may say
//! which program they are of: files of others are then not replaced, and its own earlier ones leave nothing behind.
//!
//! What others made is read by [`open_regular`] and its like: regular files alone, up to a size.
//!
//! Every operation that changes the disk goes through one function. In builds with debug assertions, tests can make it fail
//! from outside the process: see [`faults`].
//!
//! [`explained`] names pointers of Git LFS, which stand in place of a file.

#[cfg(all(unix, debug_assertions))]
pub mod faults;
mod file;
mod folder;
mod gate;
mod made_by;
mod operation;
mod path;
mod pointer;
mod read;
mod replace;
mod replacing;
mod staging;
mod sync;
mod tree;

pub use file::File;
pub use folder::{create_folder, move_folder, remove_file, remove_folder};
pub use made_by::{adopt, is_made_by, refuse_others};
pub use pointer::{explained, pointer};
pub use read::{kind_of_other, open_regular, read_limited, read_regular, read_text};
pub use replace::{copy, replace, replace_by, replace_with, write, write_through};
pub use replacing::{at_current, current, finish};
pub use staging::Staging;
pub use sync::sync_folder;
pub use tree::{move_file, sync_tree};

/// The code of the README is compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
