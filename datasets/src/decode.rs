//! Picture files to RGB.
//!
//! Rules: grey is repeated on the three channels; transparency is dropped, not blended; 16-bit values are scaled to 8
//! bits; CMYK and YCCK JPEG become RGB as (1 - ink)(1 - black); the orientation tag of a camera is not heeded, as in
//! the benchmarks' own loaders.

use std::path::Path;

use image::{ImageFormat, RgbImage};

use crate::error::DataError;

/// Decodes the picture file at `path`.
///
/// # Errors
/// A file that is missing, truncated, or no JPEG or PNG.
pub fn file(path: &Path) -> Result<RgbImage, DataError> {
    let bytes = std::fs::read(path).map_err(|e| DataError::read(path, e))?;
    memory(&bytes).map_err(|message| DataError::read(path, message))
}

/// Decodes the bytes of a picture file.
///
/// # Errors
/// What the decoder says.
pub fn memory(bytes: &[u8]) -> Result<RgbImage, String> {
    if bytes.is_empty() {
        return Err("the picture has no bytes".into());
    }
    let format = image::guess_format(bytes).map_err(|_| "it is no JPEG or PNG picture")?;
    let picture = image::load_from_memory_with_format(bytes, format).map_err(|e| e.to_string())?;
    Ok(picture.into_rgb8())
}

/// File name ending of the format of `bytes`.
///
/// # Errors
/// Bytes of neither JPEG nor PNG.
pub fn extension(bytes: &[u8]) -> Result<&'static str, String> {
    match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => Ok("png"),
        Ok(ImageFormat::Jpeg) => Ok("jpg"),
        _ => Err("it is no JPEG or PNG picture".into()),
    }
}
