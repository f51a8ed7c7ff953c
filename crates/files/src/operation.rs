//! What an operation does to the disk.

/// What an operation does to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    /// What the layer of faults is asked.
    #[cfg(all(unix, debug_assertions))]
    Write,
    Sync,
    Resize,
    Rename,
    Remove,
    MakeFolder,
    SyncFolder,
}
