//! What the launcher is told, as JSON on its command line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::protection::Limits;

/// What is launched.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    /// The interpreter.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Folders and files that may be read.
    pub readable: Vec<PathBuf>,
    /// The only folder that may be written to; also the working folder.
    pub folder: PathBuf,
    /// Its resource limits.
    pub limits: Limits,
}
