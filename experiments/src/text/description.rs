//! `text_classifier.json` in an adapter folder: everything besides the weights that is needed to classify new texts.

use std::path::Path;

use backbones::classify::Labels;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::run::files::{read_json, write_json};
use crate::train::precision::Dtype;

/// File name.
pub const FILE: &str = "text_classifier.json";

/// Description of an adapted text classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Model as given in the settings, as an absolute path or hub name; `None` for the one that ships with the program.
    pub model: Option<String>,
    /// Type of its weights in memory.
    pub dtype: Dtype,
    /// Maximum tokens of a text or pair.
    pub max_length: usize,
    /// Field of the text in tables, or the two fields of a pair, separated by a comma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_field: Option<String>,
    /// `id2label`, `label2id` and `problem_type`, as in config.json of transformers.
    #[serde(flatten)]
    pub labels: Map<String, Value>,
}

impl Description {
    /// The description of a classifier for `labels`.
    pub fn new(
        model: Option<String>,
        dtype: Dtype,
        max_length: usize,
        text_field: Option<String>,
        labels: &Labels,
    ) -> Self {
        let mut fields = Map::new();
        labels.write(&mut fields);
        Self {
            model,
            dtype,
            max_length,
            text_field,
            labels: fields,
        }
    }

    /// Writes the file into `folder`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), String> {
        write_json(&folder.join(FILE), self)
    }

    /// Reads the file in `folder`; `None` if there is none, as for an adapter made elsewhere.
    ///
    /// # Errors
    /// A file that cannot be read or is malformed.
    pub fn read(folder: &Path) -> Result<Option<Self>, String> {
        read_json(&folder.join(FILE), "correct or remove it")
    }

    /// The labels that the classifier predicts.
    ///
    /// # Errors
    /// Malformed names.
    pub fn labels(&self, folder: &Path) -> Result<Labels, String> {
        Labels::from_hf(&Value::Object(self.labels.clone()))
            .map_err(|e| format!("{}: {e}", folder.join(FILE).display()))
    }
}

#[cfg(test)]
mod tests {
    use backbones::classify::Problem;

    use super::*;

    #[test]
    fn labels_are_kept_by_name_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let labels = Labels::new(vec!["ham".into(), "spam".into()], Problem::SingleLabel).unwrap();
        let written = Description::new(None, Dtype::F32, 64, Some("subject,body".into()), &labels);
        written.write(dir.path()).unwrap();
        let read = Description::read(dir.path()).unwrap().unwrap();
        assert_eq!(read, written);
        assert_eq!(read.labels(dir.path()).unwrap(), labels);
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(
            text.contains("\"id2label\"") && text.contains("\"1\": \"spam\""),
            "{text}"
        );
        std::fs::write(dir.path().join(FILE), text.replace("\"0\": \"ham\"", "\"0\": true")).unwrap();
        let damaged = Description::read(dir.path()).unwrap().unwrap();
        assert!(damaged.labels(dir.path()).unwrap_err().contains("id2label"));
    }
}
