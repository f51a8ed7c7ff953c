//! JPEG inside TIFF: each strip or tile is a JPEG without its tables, which are stored once (TIFF Technical Note 2).

use std::io::{Read, Seek};

use image::RgbImage;
use tiff::decoder::{ChunkType, Decoder};
use tiff::tags::Tag;

use crate::tiff::refused;
use crate::{cmyk, jpeg, jpeg_pixels};

/// What the components of the JPEGs are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colours {
    /// YCbCr, to be converted.
    YCbCr,
    /// CMYK, to be converted.
    Cmyk,
    /// Grey, or RGB and perhaps alpha.
    AsStored,
}

/// The image that `decoder` stands at, from the whole `file`, in parts of `across` columns and `down` rows.
///
/// # Errors
/// A file that is cut off or damaged.
pub(crate) fn read<S: Read + Seek>(
    decoder: &mut Decoder<S>,
    file: &[u8],
    (across, down): (u32, u32),
    samples: usize,
    colours: Colours,
) -> Result<RgbImage, String> {
    let (width, height) = decoder.dimensions().map_err(refused)?;
    let tables = decoder.find_tag(Tag::JPEGTables).map_err(refused)?;
    let tables = tables.map(|tables| tables.into_u8_vec()).transpose().map_err(refused)?;
    let (offsets, counts) = match decoder.get_chunk_type() {
        ChunkType::Strip => (Tag::StripOffsets, Tag::StripByteCounts),
        ChunkType::Tile => (Tag::TileOffsets, Tag::TileByteCounts),
    };
    let offsets = decoder.get_tag_u64_vec(offsets).map_err(refused)?;
    let counts = decoder.get_tag_u64_vec(counts).map_err(refused)?;
    let columns = width.div_ceil(across.max(1)).max(1) as usize;
    // A file may name more parts than the image has.
    let parts = columns.saturating_mul(height.div_ceil(down.max(1)) as usize);
    let mut image = RgbImage::new(width, height);
    for (index, (offset, count)) in offsets.into_iter().zip(counts).take(parts).enumerate() {
        let (left, top) = ((index % columns) as u32 * across, (index / columns) as u32 * down);
        let place = || {
            let from = usize::try_from(offset).ok()?;
            file.get(from..from.checked_add(usize::try_from(count).ok()?)?)
        };
        let part = place().ok_or("the TIFF is cut off")?;
        let part = whole(part, tables.as_deref(), colours).ok_or("the TIFF is damaged: a part of it is no JPEG")?;
        let frame = jpeg::frame(&part).ok_or("the TIFF is damaged: a JPEG in it has no frame header")?;
        // The usual JPEG in a TIFF has one; a small one of many scans could be in thousands of parts.
        let scans = jpeg::scans(&part);
        if scans > jpeg::MOST_SCANS {
            return Err(format!("the TIFF is damaged: a JPEG in it has {scans} scans"));
        }
        let (used_width, used_height) = (
            across.min(width.saturating_sub(left)),
            down.min(height.saturating_sub(top)),
        );
        if frame.width < used_width || frame.height < used_height || frame.width > across || frame.height > down {
            return Err("the TIFF is damaged: a JPEG in it has the wrong size".into());
        }
        if usize::from(frame.components) != samples {
            return Err("the TIFF is damaged: a JPEG in it has the wrong number of components".into());
        }
        let mut pixels = jpeg_pixels::components(&part, &frame)?;
        match (colours, samples) {
            (Colours::Cmyk, _) => cmyk::to_rgb(&mut pixels),
            (_, 4) => {
                pixels = pixels
                    .chunks_exact(4)
                    .flat_map(|pixel| [pixel[0], pixel[1], pixel[2]])
                    .collect()
            }
            _ => {}
        }
        let pixels = RgbImage::from_raw(frame.width, frame.height, pixels).ok_or("a JPEG in the TIFF has two sizes")?;
        let used = image::imageops::crop_imm(&pixels, 0, 0, used_width, used_height).to_image();
        image::imageops::replace(&mut image, &used, left.into(), top.into());
    }
    Ok(image)
}

/// A JPEG with its tables, and with Adobe's marker, which says whether the colours are converted.
fn whole(part: &[u8], tables: Option<&[u8]>, colours: Colours) -> Option<Vec<u8>> {
    const START: [u8; 2] = [0xFF, 0xD8];
    const END: [u8; 2] = [0xFF, 0xD9];
    let mut file = START.to_vec();
    file.extend(b"\xFF\xEE\x00\x0EAdobe\x00\x64\x00\x00\x00\x00");
    file.push(u8::from(colours == Colours::YCbCr));
    if let Some(tables) = tables {
        let tables = tables.strip_prefix(&START)?;
        file.extend(tables.strip_suffix(&END).unwrap_or(tables));
    }
    file.extend(part.strip_prefix(&START)?);
    Some(file)
}
