//! Picture files to RGB.
//!
//! Rules: grey is repeated on the three channels; transparency is dropped, not blended; 16-bit values are scaled to 8
//! bits; CMYK and YCCK JPEG become RGB as (1 - ink)(1 - black); the orientation tag of a camera is not heeded, as in
//! the benchmarks' own loaders. GIF, BMP, WebP and other kinds of files are refused by name.

use std::path::{Path, PathBuf};

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
    let format = format(bytes)?;
    if format == ImageFormat::Jpeg && !ends(bytes) {
        return Err("the JPEG is cut off: its end marker is missing".into());
    }
    let picture = image::load_from_memory_with_format(bytes, format).map_err(|e| e.to_string())?;
    Ok(picture.into_rgb8())
}

/// File name ending of the format of `bytes`.
///
/// # Errors
/// Bytes of neither JPEG nor PNG.
pub fn extension(bytes: &[u8]) -> Result<&'static str, String> {
    Ok(match format(bytes)? {
        ImageFormat::Png => "png",
        _ => "jpg",
    })
}

/// JPEG or PNG, by the first bytes, whatever the file is called.
fn format(bytes: &[u8]) -> Result<ImageFormat, String> {
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png)) => Ok(format),
        Ok(other) => {
            let name = other.extensions_str().first().unwrap_or(&"other").to_uppercase();
            Err(format!(
                "it is a {name} picture; only JPEG and PNG are read, convert it to one of them"
            ))
        }
        Err(_) => Err("it is no JPEG or PNG picture, the two kinds that are read".into()),
    }
}

/// File name endings of the pictures that are read, in lower case.
const READ: [&str; 3] = ["jpg", "jpeg", "png"];

/// Endings of pictures that are not: among pictures of a folder they are an oversight, not to be passed over.
const NOT_READ: [&str; 9] = ["gif", "bmp", "webp", "tif", "tiff", "avif", "heic", "jp2", "ppm"];

/// The picture files in `folder`, by the endings of their names, sorted; other files and hidden ones are passed over.
///
/// # Errors
/// A folder that cannot be read, a picture of a kind that is not read.
pub fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)
        .map_err(|e| DataError::read(folder, e))?
        .flatten()
    {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        if READ.iter().any(|known| ending == *known) {
            found.push(path);
        } else if NOT_READ.iter().any(|known| ending == *known) {
            let message = "only .jpg, .jpeg and .png pictures are read; convert it to one of them, or take it away";
            return Err(DataError::read(&path, message));
        }
    }
    found.sort();
    Ok(found)
}

/// True if an end-of-image marker follows the last scan of a JPEG. The decoder fills what is missing with grey; a picture
/// that lost its lower half should not be trained on. (Within a scan no 0xFF is followed by either marker's code.)
fn ends(jpeg: &[u8]) -> bool {
    let last = |code: u8| jpeg.windows(2).rposition(|pair| pair == [0xFF, code]);
    last(0xD9) > last(0xDA)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::RgbImage;

    use super::*;

    #[test]
    fn a_jpeg_that_is_cut_off_is_refused_and_bytes_after_its_end_are_not() {
        let noise = RgbImage::from_fn(40, 40, |x, y| image::Rgb([(x * y) as u8, (x * 7) as u8, (y * 5) as u8]));
        let mut file = Cursor::new(Vec::new());
        noise.write_to(&mut file, ImageFormat::Jpeg).unwrap();
        let whole = file.into_inner();
        assert_eq!(memory(&whole).unwrap().dimensions(), (40, 40));
        assert!(memory(&[&whole[..], b"made by a camera"].concat()).is_ok());
        for cut in [whole.len() - 2, whole.len() * 3 / 4] {
            let message = memory(&whole[..cut]).unwrap_err();
            assert!(message.contains("cut off"), "{message}");
        }
    }
}
