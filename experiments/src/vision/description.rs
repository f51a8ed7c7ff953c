//! `classifier.json` in an adapter folder: what `predict` must know beside the weights.

use std::path::Path;

use datasets::Resize;
use serde::{Deserialize, Serialize};

use crate::run::files::write_json;

const FILE: &str = "classifier.json";

/// What an adapted classifier was trained for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Backbone as the settings name it, a path from the root on; `None` for the one that ships.
    pub backbone: Option<String>,
    /// Side of the pictures, pixels.
    pub image_size: usize,
    /// How the pictures were resized; as VTAB-1k does where an older file does not say.
    #[serde(default)]
    pub resize: Resize,
    /// Name of each class.
    pub classes: Vec<String>,
}

impl Description {
    /// Writes the file into `folder`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), String> {
        write_json(&folder.join(FILE), self)
    }

    /// Reads the file of `folder`; `None` if it has none, as an adapter made elsewhere.
    ///
    /// # Errors
    /// A file that cannot be read or is malformed.
    pub fn read(folder: &Path) -> Result<Option<Self>, String> {
        let path = folder.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|e| format!("{} is malformed ({e}); remove or mend it", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        }
    }
}
