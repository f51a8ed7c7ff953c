//! JSON files.

use std::path::Path;

use serde_json::Value;

use crate::error::ImportError;

/// The content of a JSON file.
///
/// # Errors
/// A file that cannot be read or is not JSON.
pub(crate) fn read_json(path: &Path) -> Result<Value, ImportError> {
    let error = |message: String| ImportError::Config {
        path: path.to_path_buf(),
        message,
    };
    let text = std::fs::read_to_string(path).map_err(|e| error(format!("cannot read it ({e})")))?;
    serde_json::from_str(&text).map_err(|e| error(format!("not JSON ({e})")))
}
