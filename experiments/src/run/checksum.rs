//! Checksums of the files that a run reads, without their paths.

use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

/// Adds the content of a file.
///
/// # Errors
/// A file that cannot be read.
pub fn add_file(sum: &mut Sha256, path: &Path) -> Result<(), String> {
    let error = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    let mut file = files::open_regular(path).map_err(error)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(error)? {
            0 => return Ok(()),
            count => sum.update(&buffer[..count]),
        }
    }
}

/// Adds the names and sizes of a model's files, and the content of the small ones (config.json, …); weights of
/// gigabytes are not read.
///
/// # Errors
/// A folder or file that cannot be read.
pub fn add_model(sum: &mut Sha256, path: &Path) -> Result<(), String> {
    /// Maximum size of a file whose content is read, bytes.
    const SMALL: u64 = 16 << 20;
    let error = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    let mut files = Vec::new();
    if path.is_file() {
        files.push(path.to_path_buf());
    } else {
        for entry in std::fs::read_dir(path).map_err(error)? {
            files.push(entry.map_err(error)?.path());
        }
    }
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        let size = std::fs::metadata(file).map_err(error)?.len();
        sum.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        sum.update(size.to_le_bytes());
        if size <= SMALL {
            add_file(sum, file)?;
        }
    }
    Ok(())
}
