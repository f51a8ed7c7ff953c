//! What an operation does to the disk.

/// What an operation does to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Write,
    Sync,
    Resize,
    Rename,
    Remove,
    MakeFolder,
    SyncFolder,
}
