//! The pixels of a JPEG: those of Pillow, which decodes with libjpeg-turbo, bit for bit.
//!
//! The decoder of the image crate rounds chroma twice when it enlarges it and repeats it where libjpeg interpolates: it is
//! off by 2 or 3 of 255 in most files and by up to 77 at the right and lower edges of some.

use image::RgbImage;
use image::metadata::Orientation;
use libjpeg_turbo_rs::{DecodeLimits, DecodeWarning, Decoder, PixelFormat};

use crate::jpeg::Frame;
use crate::{cmyk, orientation};

/// Maximum scans of a file: each is a pass over the whole image, and the usual progressive file has about ten.
const DECODER_SCANS: usize = 1000;

/// A decoded JPEG.
pub(crate) struct Pixels {
    pub(crate) image: RgbImage,
    pub(crate) orientation: Orientation,
    /// What is not as it was in the image, if the file is damaged.
    pub(crate) lost: Option<String>,
}

/// Decodes a whole file of one `frame`.
///
/// # Errors
/// A file that is damaged so that no image can be made of it, or of a kind that is not read.
pub(crate) fn rgb(bytes: &[u8], frame: &Frame) -> Result<Pixels, String> {
    let mut decoder = opened(bytes, frame)?;
    let orientation = orientation::of(decoder.exif_data(), decoder.xmp_data());
    let mut pixels = vec![0; decoder.output_buffer_size().map_err(damaged)?];
    let mut lost = None;
    if decoder.decode_image_into(&mut pixels).is_err() {
        // As Pillow reads it: the damaged places are grey, the others are used.
        decoder.set_lenient(true);
        pixels.fill(0);
        let info = decoder.decode_image_into(&mut pixels).map_err(damaged)?;
        lost = told(&info.warnings)?;
    }
    if frame.components == 4 {
        // Adobe's programs store how much of the ink is missing, and Pillow takes it that all others do.
        pixels.iter_mut().for_each(|value| *value = 255 - *value);
        cmyk::to_rgb(&mut pixels);
    }
    Ok(Pixels {
        image: RgbImage::from_raw(frame.width, frame.height, pixels).ok_or("the JPEG has two sizes")?,
        orientation,
        lost,
    })
}

/// Decodes a strip or tile of a TIFF: four components as they are stored, RGB of others.
///
/// # Errors
/// The same; also any damage.
pub(crate) fn components(bytes: &[u8], frame: &Frame) -> Result<Vec<u8>, String> {
    let decoder = opened(bytes, frame)?;
    let mut pixels = vec![0; decoder.output_buffer_size().map_err(damaged)?];
    decoder.decode_image_into(&mut pixels).map_err(damaged)?;
    Ok(pixels)
}

fn opened<'a>(bytes: &'a [u8], frame: &Frame) -> Result<Decoder<'a>, String> {
    check(frame)?;
    let limits = DecodeLimits {
        max_pixels: u64::from(frame.width) * u64::from(frame.height),
        max_scans: DECODER_SCANS,
        ..Default::default()
    };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(damaged)?;
    decoder.set_output_format(match frame.components {
        4 => PixelFormat::Cmyk,
        _ => PixelFormat::Rgb,
    });
    // As libjpeg does it unasked, where a progressive file ends before its last scan.
    decoder.set_block_smoothing(true);
    Ok(decoder)
}

/// Refuses what Pillow refuses, and samplings that are in no file a program writes.
fn check(frame: &Frame) -> Result<(), String> {
    if frame.precision != 8 {
        return Err(format!(
            "the JPEG has {} bits per sample; 8 are read, convert it",
            frame.precision
        ));
    }
    let [first, second, third, fourth] = frame.sampling;
    let plain = match frame.components {
        1 | 3 => true,
        4 => {
            first == fourth
                && second == third
                && first == frame.finest()
                && first.0 % second.0.max(1) == 0
                && first.1 % second.1.max(1) == 0
        }
        other => return Err(format!("the JPEG has {other} components; 1, 3 or 4 are read")),
    };
    match plain {
        true => Ok(()),
        false => Err(format!(
            "the JPEG samples its four components as {:?}; the first and the last must be the finest, the others alike",
            frame.sampling
        )),
    }
}

/// The damage that was passed over.
fn told(warnings: &[DecodeWarning]) -> Result<Option<String>, String> {
    let mut places = 0;
    for warning in warnings {
        match warning {
            DecodeWarning::UnsupportedRecovered { detail } => return Err(format!("the JPEG is not read: {detail}")),
            DecodeWarning::WarningsSuppressed { count } => places += count,
            DecodeWarning::HuffmanError { .. } | DecodeWarning::TruncatedData { .. } => places += 1,
            _ => {}
        }
    }
    Ok((places > 0).then(|| "the JPEG is damaged: a part of the image is grey or shifted".to_string()))
}

fn damaged(error: libjpeg_turbo_rs::JpegError) -> String {
    format!("the JPEG is damaged or of an unusual kind: {error}")
}
