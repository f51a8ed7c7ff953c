//! Errors of data on disk.

use std::path::{Path, PathBuf};

use crate::language::TextError;

/// Data that cannot be used, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder that cannot be read or has the wrong content.
    #[error("cannot read {path}: {message}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system or the decoder says.
        message: String,
    },
    /// A line of a list that is not as expected.
    #[error("{path}, line {line}: {message}")]
    Line {
        /// The list.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// What was found and what is expected.
        message: String,
    },
    /// A table of labels that cannot be used.
    #[error(transparent)]
    Table(#[from] TextError),
    /// A list without lines.
    #[error("{path} is empty; expected lines of the form 'path label'")]
    Empty {
        /// The list.
        path: PathBuf,
    },
    /// A file or folder that cannot be written.
    #[error("cannot write {path}: {message}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        message: String,
    },
    /// Data that is intact but is not the benchmark's.
    #[error("{0}")]
    Mismatch(String),
    /// The caller stopped the operation.
    #[error("reading images was stopped")]
    Stopped,
}

impl DataError {
    /// `path` cannot be read, because of `message`.
    pub(crate) fn read(path: &Path, message: impl ToString) -> Self {
        Self::Read {
            path: path.to_path_buf(),
            message: files::explained(path, message),
        }
    }

    /// `path` cannot be written, because of `message`.
    pub(crate) fn write(path: &Path, message: impl ToString) -> Self {
        Self::Write {
            path: path.to_path_buf(),
            message: message.to_string(),
        }
    }
}
