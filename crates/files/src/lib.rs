//! The one place where files are written.
//!
//! A file is written beside its place, brought to the disk (`fsync`), renamed, and its folder brought to the disk: whoever
//! reads it, after a kill, a full disk or a power loss too, finds the old content or the new one, never a part, and what has
//! been reported as written is there. Lines are appended in one piece each and are on the disk once [`File::sync`] has
//! returned; a kill leaves whole lines and at most one that is torn.
//!
//! Every operation that changes the disk passes one gate. In builds with debug assertions tests make the gate fail, from
//! outside the process: see [`faults`].

#[cfg(all(unix, debug_assertions))]
pub mod faults;
mod file;
mod folder;
mod gate;
mod replace;
mod tree;

pub use file::File;
pub use folder::{create_folder, move_folder, remove_file, remove_folder, sync_folder};
pub use replace::{copy, replace, replace_by, replace_with, write, write_through};
pub use tree::{move_file, sync_tree};
