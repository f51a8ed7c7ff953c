//! Runs untrusted programs, each in its own process, which cannot access the user's files, the network or other
//! processes, and which ends when it exceeds its time, memory or disk space.
//!
//! The process is this program, started again with [`launcher::NAME`]: it gives up its rights (`linux`), sets its
//! limits (`limits`) and becomes the interpreter, which then has access to a few files, but to no network and no other
//! process.

mod launch;
pub mod launcher;
mod limits;
#[cfg(target_os = "linux")]
mod linux;
mod process;
mod protection;
pub mod python;

pub use protection::{Holds, Limits};
pub use python::{Ended, Python};
