//! JSON files.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::ImportError;

/// Bytes of such a file at most. Parsed JSON takes up to thirty times its size in memory; the longest files that models have
/// name 65,000 tokens in 13 MB.
const LONGEST: u64 = 16 << 20;

/// The content of a JSON file of a model.
///
/// # Errors
/// A file that cannot be read, is too long or is not JSON.
pub(crate) fn read_json(path: &Path) -> Result<Value, ImportError> {
    let error = |message: String| ImportError::Config {
        path: path.to_path_buf(),
        message: files::explained(path, message),
    };
    let text = files::read_text(path, LONGEST).map_err(|e| error(format!("cannot read it ({e})")))?;
    serde_json::from_str(&text).map_err(|e| error(format!("not JSON ({e})")))
}

/// The fields of a JSON file of a model; none if there is no such file.
///
/// # Errors
/// As [`read_json`]; a file that is no object.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>, ImportError> {
    if !path.is_file() {
        return Ok(Map::new());
    }
    match read_json(path)? {
        Value::Object(fields) => Ok(fields),
        other => Err(ImportError::Config {
            path: path.to_path_buf(),
            message: format!("expected a JSON object, found {other}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_length_that_no_model_has_is_not_parsed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let padded = |bytes: u64| std::fs::write(&path, format!("1{}", " ".repeat(bytes as usize - 1))).unwrap();
        padded(LONGEST);
        assert_eq!(read_json(&path).unwrap(), 1);
        padded(LONGEST + 1);
        let message = read_json(&path).unwrap_err().to_string();
        assert!(
            message.contains("config.json") && message.contains("it has 16777217 bytes"),
            "{message}"
        );
    }
}
