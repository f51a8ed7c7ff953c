//! Tokens in the files beside tokenizer.json that are too long.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::BESIDE;
use super::steps::{LONGEST_TOKEN, Longest};
use crate::error::ImportError;
use crate::json::read_object;

/// # Errors
/// A token that is too long, in one of [`BESIDE`] of `folder`. A file that is malformed is left to whoever uses it.
pub(super) fn refuse(folder: &Path) -> Result<(), ImportError> {
    for name in BESIDE {
        let path = folder.join(name);
        let fields = read_object(&path).unwrap_or_default();
        // tokenizer_config.json has chat templates, too.
        let names_tokens = |field: &str| name != BESIDE[0] || field.contains("token");
        let longest = |value: &Value| Longest::deserialize(value).map_or(0, |longest| longest.0);
        let found = fields
            .iter()
            .filter(|(field, _)| names_tokens(field))
            .map(|(field, value)| (field, field.len().max(longest(value))))
            .find(|(_, bytes)| *bytes > LONGEST_TOKEN);
        if let Some((field, bytes)) = found {
            let field: String = field.chars().take(40).collect();
            let message =
                format!("field '{field}' has a text of {bytes} bytes, expected at most {LONGEST_TOKEN} for a token");
            return Err(ImportError::Config { path, message });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_file_and_the_field_are_named() {
        let long = "x".repeat(LONGEST_TOKEN + 1);
        let cases = [
            (BESIDE[0], json!({"bos_token": long}), "bos_token"),
            (BESIDE[0], json!({"add_bos_token": long}), "add_bos_token"),
            (
                BESIDE[0],
                json!({"added_tokens_decoder": {"0": {"content": long}}}),
                "added_tokens_decoder",
            ),
            (
                BESIDE[1],
                json!({"additional_special_tokens": ["a", long]}),
                "additional_special_tokens",
            ),
            (BESIDE[2], json!({&long: 3}), "'xxxx"),
        ];
        for (name, content, field) in cases {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(name), content.to_string()).unwrap();
            let message = refuse(dir.path()).unwrap_err().to_string();
            for part in [name, field, "4097 bytes"] {
                assert!(message.contains(part) && message.len() < 400, "{part}: {message}");
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let config = json!({"chat_template": long, "bos_token": {"content": "<s>"}, "tokenizer_class": "X"});
        std::fs::write(dir.path().join(BESIDE[0]), config.to_string()).unwrap();
        refuse(dir.path()).unwrap();
    }
}
