//! Resource limits of this process and of the program that it becomes.
#![cfg(unix)]

use nix::sys::resource::{Resource, setrlimit};

use super::protection::Limits;

/// Open files.
const FILES: u64 = 64;

/// Additional CPU seconds, for the start of the interpreter.
const START: u64 = 2;

/// Sets the limits of this process.
///
/// # Errors
/// A limit that the system does not allow to be set.
pub fn set(limits: &Limits) -> Result<(), String> {
    let cpu = limits.seconds.ceil() as u64 + START;
    let limit = |resource, name: &str, soft: u64, hard: u64| {
        setrlimit(resource, soft, hard).map_err(|e| format!("cannot limit {name}: {e}"))
    };
    // The process may catch the signal of the soft limit, but not that of the hard limit.
    limit(Resource::RLIMIT_CPU, "CPU time", cpu, cpu + 1)?;
    limit(
        Resource::RLIMIT_FSIZE,
        "file size",
        limits.disk_mb << 20,
        limits.disk_mb << 20,
    )?;
    limit(Resource::RLIMIT_NOFILE, "open files", FILES, FILES)?;
    limit(Resource::RLIMIT_CORE, "core dumps", 0, 0)?;
    limit(
        Resource::RLIMIT_AS,
        "memory",
        limits.memory_mb << 20,
        limits.memory_mb << 20,
    )
}
