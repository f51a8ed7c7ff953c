//! The content of prepared.json.

use serde::{Deserialize, Serialize};

/// The source and lists of a prepared task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Dataset and version, or the archive.
    pub source: String,
    /// The lists.
    pub lists: Vec<Checksum>,
}

/// One list of a prepared task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// train800, val200 or test.
    pub list: String,
    /// Number of images.
    #[serde(alias = "pictures")]
    pub images: usize,
    /// SHA-256 in hexadecimal over the label (8 bytes, little-endian) and the bytes of every image: for a JPEG those of
    /// the file, for a PNG the decoded RGB, so that the encoder of the PNG does not matter.
    pub sha256: String,
}
