//! The gate that every operation passes: repeated where a signal interrupted it, made to fail where a test asks for it.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::operation::Operation;

/// Runs `act`, which does `operation` to `path`, until no signal interrupts it.
pub(crate) fn pass<T>(operation: Operation, path: &Path, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match gate(operation, path).and_then(|()| act()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Writes some of `bytes` to the file at `path` by `act`.
#[cfg(all(unix, debug_assertions))]
pub(crate) fn pass_write(
    path: &Path,
    bytes: &[u8],
    mut act: impl FnMut(&[u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    crate::faults::write(path, bytes, &mut act)
}

#[cfg(not(all(unix, debug_assertions)))]
#[inline]
pub(crate) fn pass_write(_: &Path, bytes: &[u8], mut act: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
    act(bytes)
}

#[cfg(all(unix, debug_assertions))]
fn gate(operation: Operation, path: &Path) -> io::Result<()> {
    crate::faults::gate(operation, path)
}

#[cfg(not(all(unix, debug_assertions)))]
#[inline]
fn gate(_: Operation, _: &Path) -> io::Result<()> {
    Ok(())
}

/// What has been done, for the simulation of a power loss.
#[cfg(all(unix, debug_assertions))]
pub(crate) use crate::faults::journal as power;

#[cfg(not(all(unix, debug_assertions)))]
pub(crate) mod power {
    //! In release builds nobody asks.
    use std::path::Path;

    #[inline]
    pub(crate) fn created(_: &Path) {}
    #[inline]
    pub(crate) fn written(_: &Path) {}
    #[inline]
    pub(crate) fn synced(_: &Path) {}
    #[inline]
    pub(crate) fn folder_made(_: &Path) {}
    #[inline]
    pub(crate) fn folder_synced(_: &Path) {}
    #[inline]
    pub(crate) fn tree_synced(_: &Path) {}
    #[inline]
    pub(crate) fn before_rename(_: &Path, _: &Path) {}
    #[inline]
    pub(crate) fn before_removal(_: &Path) {}
}
