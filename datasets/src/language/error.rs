//! Errors of language data on disk.

use std::path::{Path, PathBuf};

/// Why a file of examples or questions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file or folder that cannot be read.
    #[error("cannot read {path}: {message}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says, or what to do.
        message: String,
    },
    /// A line that is not a JSON object, or lacks a field.
    #[error("{path}:{line}: {message}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// What was found and what is expected.
        message: String,
    },
    /// An item of a JSON array or a row of a table that lacks a field.
    #[error("{path}, item {item}: {message}")]
    Item {
        /// The file.
        path: PathBuf,
        /// Number from 1.
        item: usize,
        /// What was found and what is expected.
        message: String,
    },
    /// A file without a usable example.
    #[error("{path} holds no {what}")]
    Empty {
        /// The file.
        path: PathBuf,
        /// The expected content.
        what: &'static str,
    },
}

impl TextError {
    pub(crate) fn read(path: &Path, message: impl ToString) -> Self {
        Self::Read {
            path: path.to_path_buf(),
            message: files::explained(path, message),
        }
    }
}
