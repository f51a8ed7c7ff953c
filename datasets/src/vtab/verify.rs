//! prepared.json: the source of a prepared task, and a check that its files are unchanged.

use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::decode::{self, Decoder};
use crate::error::DataError;
use crate::vtab::prepared::{Checksum, Prepared};
use crate::{lists, paths, progress};

/// The file that marks a finished task and describes it.
pub(super) const PREPARED: &str = "prepared.json";

/// Images whose bytes for the checksum are in memory at a time.
const CHUNK: usize = 256;

/// Maximum size of the description.
const MOST_BYTES: u64 = 1 << 24;

/// The description of the prepared task in `folder`; `None` if there is no prepared.json.
pub(super) fn read(folder: &Path) -> Result<Option<Prepared>, DataError> {
    let path = folder.join(PREPARED);
    let text = match files::read_text(&path, MOST_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataError::read(&path, error)),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|e| DataError::read(&path, e))
}

/// Checks by checksums that the images in `folder` are those that were prepared; tasks that were not prepared are not
/// checked.
///
/// # Errors
/// A file that is missing or has changed.
pub fn verify(folder: &Path) -> Result<(), DataError> {
    match read(folder)? {
        Some(_) => finished(folder).map(drop),
        None => Ok(()),
    }
}

/// The description of the finished task in `folder`, after verifying its checksums.
pub(super) fn finished(folder: &Path) -> Result<Prepared, DataError> {
    let prepared = read(folder)?.ok_or_else(|| {
        let message =
            format!("it is there already and was not made by vtab-prepare (no {PREPARED}); choose another --out");
        DataError::write(folder, message)
    })?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let total = prepared.lists.iter().map(|list| list.images).sum();
    let bar = progress::bar(total, format!("{name}: verifying"));
    for list in &prepared.lists {
        let found = checksum(folder, &list.list, &bar)?;
        if found != *list {
            let message = format!(
                "the images of {}.txt are not those that were prepared ({} of SHA-256 {}…, expected {} of {}…); remove the \
                 folder and make it anew",
                list.list,
                found.images,
                found.sha256.get(..8).unwrap_or_default(),
                list.images,
                list.sha256.get(..8).unwrap_or_default()
            );
            return Err(DataError::read(folder, message));
        }
    }
    bar.finish_and_clear();
    Ok(prepared)
}

/// The checksum of a list's labels and images.
fn checksum(folder: &Path, list: &str, bar: &indicatif::ProgressBar) -> Result<Checksum, DataError> {
    let path = paths::within(folder, &format!("{list}.txt")).map_err(|message| DataError::read(folder, message))?;
    let entries = lists::read(&path)?;
    let mut hash = Sha256::new();
    for chunk in entries.chunks(CHUNK) {
        let parts = chunk
            .par_iter()
            .map(|entry| {
                let path = paths::within(folder, &entry.path).map_err(|message| DataError::read(folder, message))?;
                let bytes = files::read_regular(&path).map_err(|e| DataError::read(&path, e))?;
                bar.inc(1);
                hashed(&bytes).map_err(|message| DataError::read(&path, message))
            })
            .collect::<Result<Vec<_>, _>>()?;
        for (entry, part) in chunk.iter().zip(parts) {
            hash.update((entry.label as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(Checksum {
        list: list.into(),
        images: entries.len(),
        sha256: hex(&hash.finalize()),
    })
}

/// The bytes for the checksum of an image: for a PNG its RGB, so that the encoder does not matter; for other files
/// their bytes.
fn hashed(bytes: &[u8]) -> Result<Vec<u8>, String> {
    match decode::extension(bytes)? {
        "png" => Ok(Decoder::of_benchmarks().bytes(bytes)?.image.into_raw()),
        _ => Ok(bytes.to_vec()),
    }
}

/// `digest` in hexadecimal.
pub(super) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
