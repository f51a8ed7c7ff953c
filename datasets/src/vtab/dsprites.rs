//! dSprites from its authors' archive (`dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz`), in the order in which TFDS
//! stores the same images: by the MD5 of the split's name and the image's number, both as text.

use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;
use image::{GrayImage, ImageFormat};
use md5::{Digest, Md5};
use rawzip::{CompressionMethod, ZipArchive, ZipSliceArchive};

use crate::error::DataError;

/// File name of the archive.
pub const FILE: &str = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz";

/// Side length of an image, pixels.
const SIDE: usize = 64;

/// Number of images in dSprites.
const MOST: usize = 737_280;

/// Columns of the archive's `latents_classes`.
const COLUMNS: [&str; 6] = [
    "label_color",
    "label_shape",
    "label_scale",
    "label_orientation",
    "label_x_position",
    "label_y_position",
];

/// Indices of the `count` images in TFDS's order for split `split`.
pub fn tfds_order(count: usize, split: &str) -> Vec<usize> {
    let mut keys: Vec<([u8; 16], usize)> = (0..count)
        .map(|number| (Md5::digest(format!("{split}{number}")).into(), number))
        .collect();
    keys.sort_unstable();
    keys.into_iter().map(|(_, number)| number).collect()
}

/// Callback for an image: the archive, its PNG, a factor.
pub type EachImage<'a> = dyn FnMut(&Path, Vec<u8>, i64) -> Result<(), DataError> + 'a;

/// Some images of the archive, in memory: 512 bytes each.
pub struct Dsprites {
    /// Number of images in the archive.
    pub count: usize,
    path: PathBuf,
    /// Position in TFDS's order, mask with one bit per pixel, factors; sorted by position.
    images: Vec<(usize, Box<[u8]>, [i64; 6])>,
}

impl Dsprites {
    /// Reads the images at `places` of TFDS's order, in one pass over the archive.
    ///
    /// # Errors
    /// An archive that is missing, damaged or has another shape.
    pub fn open(path: &Path, places: &[Range<usize>]) -> Result<Self, DataError> {
        let error = |message: String| DataError::read(path, message);
        // 26 MB; its 3 GB of uncompressed images are read as a stream.
        let bytes = files::read_regular(path).map_err(|e| error(e.to_string()))?;
        let archive = ZipArchive::from_slice(bytes).map_err(|e| error(e.to_string()))?;
        let factors = factors(&archive).map_err(error)?;
        let mut place_of = vec![None; factors.len()];
        for (place, number) in tfds_order(factors.len(), "train").into_iter().enumerate() {
            if places.iter().any(|range| range.contains(&place)) {
                place_of[number] = Some(place);
            }
        }
        let mut entry = entry(&archive, "imgs.npy").map_err(error)?;
        header(&mut entry, "|u1", &[factors.len(), SIDE, SIDE]).map_err(|m| error(format!("imgs.npy: {m}")))?;
        let mut images = Vec::new();
        let mut mask = [0; SIDE * SIDE];
        for (place, factors) in place_of.into_iter().zip(&factors) {
            entry
                .read_exact(&mut mask)
                .map_err(|e| error(format!("imgs.npy: {e}")))?;
            if let Some(place) = place {
                let bits = mask.chunks_exact(8).map(|pixels| {
                    let bit = |(at, pixel): (usize, &u8)| u8::from(*pixel != 0) << at;
                    pixels.iter().enumerate().map(bit).sum()
                });
                images.push((place, bits.collect(), *factors));
            }
        }
        end(&mut entry).map_err(|m| error(format!("imgs.npy: {m}")))?;
        images.sort_unstable_by_key(|(place, ..)| *place);
        Ok(Self {
            count: factors.len(),
            path: path.to_path_buf(),
            images,
        })
    }

    /// Calls `each` with the images at `places` of TFDS's order: a PNG of 0 and 1, as TFDS stores it, and the value of
    /// factor `feature`.
    ///
    /// # Errors
    /// Positions that were not read, an unknown factor, errors of `each`.
    pub fn records(&self, feature: &str, places: Range<usize>, each: &mut EachImage) -> Result<(), DataError> {
        let error = |message: String| DataError::read(&self.path, message);
        let column = COLUMNS
            .iter()
            .position(|name| *name == feature)
            .ok_or_else(|| error(format!("there is no factor '{feature}'")))?;
        let chosen = self.images.iter().filter(|(place, ..)| places.contains(place));
        if chosen.clone().count() != places.len() {
            let message = format!(
                "it has {} images; {} to {} are wanted",
                self.count, places.start, places.end
            );
            return Err(error(message));
        }
        for (_, bits, factors) in chosen {
            let image = GrayImage::from_fn(SIDE as u32, SIDE as u32, |x, y| {
                let at = y as usize * SIDE + x as usize;
                image::Luma([bits[at / 8] >> (at % 8) & 1])
            });
            let mut png = Cursor::new(Vec::new());
            image
                .write_to(&mut png, ImageFormat::Png)
                .map_err(|e| error(e.to_string()))?;
            each(&self.path, png.into_inner(), factors[column])?;
        }
        Ok(())
    }
}

/// `latents_classes`, six whole numbers per image.
fn factors(archive: &ZipSliceArchive<Vec<u8>>) -> Result<Vec<[i64; 6]>, String> {
    const NAME: &str = "latents_classes.npy";
    let mut entry = entry(archive, NAME)?;
    let shape = header(&mut entry, "<i8", &[]).map_err(|message| format!("{NAME}: {message}"))?;
    if shape.len() != 2 || shape[1] != COLUMNS.len() {
        return Err(format!("{NAME}: its shape is {shape:?}, expected [images, 6]"));
    }
    if shape[0] > MOST {
        return Err(format!("{NAME}: it is of {} images; dSprites has {MOST}", shape[0]));
    }
    let mut factors = Vec::new();
    let mut row = [0; 48];
    for _ in 0..shape[0] {
        entry.read_exact(&mut row).map_err(|e| format!("{NAME}: {e}"))?;
        let value = |column: usize| i64::from_le_bytes(row[8 * column..8 * column + 8].try_into().expect("8 bytes"));
        factors.push(std::array::from_fn(value));
    }
    end(&mut entry).map_err(|message| format!("{NAME}: {message}"))?;
    Ok(factors)
}

/// The bytes of file `name` in the archive; the checksum is verified at the end.
fn entry<'a>(archive: &'a ZipSliceArchive<Vec<u8>>, name: &str) -> Result<Box<dyn Read + 'a>, String> {
    let mut entries = archive.entries();
    while let Some(entry) = entries.next_entry().map_err(|e| e.to_string())? {
        if entry.file_path().as_ref() != name.as_bytes() {
            continue;
        }
        let found = archive.get_entry(entry.wayfinder()).map_err(|e| e.to_string())?;
        return match entry.compression_method() {
            CompressionMethod::STORE => Ok(Box::new(found.verifying_reader(found.data()))),
            CompressionMethod::DEFLATE => Ok(Box::new(found.verifying_reader(DeflateDecoder::new(found.data())))),
            other => Err(format!("{name}: its compression ({other:?}) is not NumPy's")),
        };
    }
    Err(format!("there is no {name} in it"))
}

/// Reads the end, so that the checksum is verified; nothing may be left.
fn end(entry: &mut impl Read) -> Result<(), String> {
    // What is left could unpack to any length.
    match std::io::copy(&mut entry.take(1), &mut std::io::sink()).map_err(|e| e.to_string())? {
        0 => Ok(()),
        _ => Err("it has more bytes than its shape says".into()),
    }
}

/// Reads the header of an .npy file and returns its shape, which must equal `shape` unless that is empty.
fn header(file: &mut impl Read, kind: &str, shape: &[usize]) -> Result<Vec<usize>, String> {
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(|e| e.to_string())?;
    if &start[..6] != b"\x93NUMPY" {
        return Err("it is no NumPy array".into());
    }
    // In version 1 the length has two bytes, in later versions four.
    let mut length = [0; 4];
    let used = if start[6] == 1 { 2 } else { 4 };
    file.read_exact(&mut length[..used]).map_err(|e| e.to_string())?;
    let mut text = Vec::new();
    file.take(u64::from(u32::from_le_bytes(length)).min(1 << 16))
        .read_to_end(&mut text)
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&text).replace(' ', "");
    let found = text
        .split_once("'shape':(")
        .and_then(|(_, rest)| rest.split_once(')'))
        .map(|(numbers, _)| {
            let numbers = numbers.split(',').filter(|number| !number.is_empty());
            numbers.map(str::parse).collect::<Result<Vec<usize>, _>>()
        });
    let Some(Ok(found)) = found else {
        return Err(format!("its head has no shape: {text}"));
    };
    if !text.contains(&format!("'descr':'{kind}'")) || !text.contains("'fortran_order':False") {
        return Err(format!("expected rows of {kind}, found {text}"));
    }
    if !shape.is_empty() && found != shape {
        return Err(format!("its shape is {found:?}, expected {shape:?}"));
    }
    Ok(found)
}
