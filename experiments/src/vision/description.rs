//! `classifier.json` in an adapter folder: what `predict` must know besides the weights.

use std::path::Path;

use datasets::Resize;
use serde::{Deserialize, Serialize};

use crate::run::files::{LONGEST, write_json};

/// Its name.
pub const FILE: &str = "classifier.json";

/// Description of an adapted classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Backbone as given in the settings, as an absolute path or hub name; `None` for the one that ships with the
    /// program.
    pub backbone: Option<String>,
    /// Side length of the images, pixels.
    pub image_size: usize,
    /// How the images were resized; as for VTAB-1k if an older file does not say.
    #[serde(default)]
    pub resize: Resize,
    /// Name of each class.
    pub classes: Vec<String>,
}

/// Maximum side length of an image, pixels: larger images would need too much memory for tokens and position
/// embeddings.
pub const MOST_PIXELS: usize = 4096;

/// Refuses a size that no model uses; `name` tells where it came from.
///
/// # Errors
/// 0 pixels, or more than [`MOST_PIXELS`].
pub fn check_image_size(name: &str, pixels: usize) -> Result<(), String> {
    match (1..=MOST_PIXELS).contains(&pixels) {
        true => Ok(()),
        false => Err(format!("{name} is {pixels}; it must be in 1 to {MOST_PIXELS}")),
    }
}

impl Description {
    /// The content of the file.
    ///
    /// # Errors
    /// None that a description gives reason for.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec_pretty(self).map_err(|e| e.to_string())
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
        let path = folder.join(FILE);
        match files::at_current(&path, |path| files::read_text(path, LONGEST)) {
            Ok(text) => {
                let read: Self = serde_json::from_str(&text)
                    .map_err(|e| format!("{} is malformed ({e}); correct or remove it", path.display()))?;
                check_image_size(&format!("{}: image_size", path.display()), read.image_size)?;
                Ok(Some(read))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_would_fill_the_memory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for size in ["2147483648", "9223372036854775808", "0"] {
            let text = format!("{{\"backbone\": null, \"image_size\": {size}, \"classes\": [\"a\"]}}");
            std::fs::write(dir.path().join(FILE), text).unwrap();
            assert!(
                Description::read(dir.path()).unwrap_err().contains("image_size is"),
                "{size}"
            );
        }
    }
}
