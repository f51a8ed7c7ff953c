//! Decodes image files to RGB: JPEG, PNG, GIF, BMP, WebP, TIFF and PNM, recognized by their first bytes, not by their
//! names.
//!
//! The rules are those of Pillow's `convert("RGB")`: grey is copied to the three channels; transparency is dropped, not
//! blended; of colours with 16 bits the higher 8 are used, and grey of more than 8 bits is clipped to 255, not scaled
//! ([`Decoded::lost`]); CMYK becomes RGB as (1 - ink)(1 - black); only the first frame of an animation or the first page
//! is used; colour profiles are ignored. The orientation in EXIF, or else in XMP, is applied, as in Hugging Face's
//! datasets and transformers; torchvision and the loaders of VTAB-1k and FGVC ignore it ([`Decoder::apply_orientation`]).
//! AVIF, HEIC and JPEG 2000 are refused by name.
//!
//! An image with more pixels than [`Decoder::max_pixels`] is refused before anything is allocated for it, and all
//! threads together hold at most 256 MiB of images that are being decoded (a larger image is decoded alone).

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, ErrorKind, Read, Seek};
use std::path::Path;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use crate::error::DataError;
use crate::guard::guarded;
use crate::in_flight::{self, Permit};
use crate::{gif_pixels, jpeg, jpeg_pixels, orientation, png, tiff, tiff_pixels, webp};

/// Default limit on the pixels of an image: somewhat more than the 108 megapixels of a phone.
pub const MAX_PIXELS: u64 = 1 << 27;

/// Maximum width and height.
const MAX_SIDE: u32 = 1 << 17;

/// Maximum bytes of decoded pixels, as a multiple of the maximum number of pixels: four channels of 8 bits.
const DEPTH: u64 = 4;

/// Maximum size of an image file, bytes.
const MAX_FILE: u64 = 1 << 30;

/// Maximum size of what comes before the pixels of a PNM, bytes.
const LONGEST_PNM_HEADER: u64 = 1 << 16;

/// Memory that a decoder may use for metadata and tables, besides the pixels.
const BESIDE: u64 = 8 << 20;

/// How image files are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoder {
    /// Images with more pixels are refused.
    pub max_pixels: u64,
    /// Apply the orientation that the EXIF or XMP of an image asks for.
    pub apply_orientation: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            max_pixels: MAX_PIXELS,
            apply_orientation: true,
        }
    }
}

/// A decoded image. Until it is dropped, it counts as an image that is being decoded.
#[derive(Debug)]
pub struct Decoded {
    /// The image.
    pub image: RgbImage,
    /// True if an orientation was applied.
    pub turned: bool,
    /// What of the file is not in the image: damage, clipped values. One sentence without the file's name.
    pub lost: Option<String>,
    _permit: Permit,
}

/// The sentence for grey of more than 8 bits.
const CLIPPED: &str = "its grey values beyond 0 to 255 are clipped to that, as Pillow does; store it with 8 bits";

/// An image as it is stored.
struct Stored {
    image: DynamicImage,
    orientation: Orientation,
    lost: Option<String>,
}

/// What is known of an image before it is decoded.
struct Header {
    format: ImageFormat,
    width: u32,
    height: u32,
    /// Bytes of a decoded pixel.
    depth: u64,
    /// Memory that decoding takes.
    bytes: u64,
}

impl Decoder {
    /// Decodes as the loaders of VTAB-1k and FGVC do: the EXIF orientation is ignored.
    pub fn of_benchmarks() -> Self {
        Self {
            apply_orientation: false,
            ..Self::default()
        }
    }

    /// Decodes the image file at `path`.
    ///
    /// # Errors
    /// A file that is missing, damaged, truncated, too large, or in an unsupported format.
    pub fn file(&self, path: &Path) -> Result<Decoded, DataError> {
        let (mut file, header) = self.open(path)?;
        let permit = in_flight::acquire(header.bytes);
        let mut bytes = Vec::new();
        let read = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
        read.map_err(|e| DataError::read(path, e))?;
        self.decode(&bytes, &header, permit)
            .map_err(|message| DataError::read(path, message))
    }

    /// Decodes the bytes of an image file.
    ///
    /// # Errors
    /// Same as [`Decoder::file`], without the file name.
    pub fn bytes(&self, bytes: &[u8]) -> Result<Decoded, String> {
        let header = self.checked(Cursor::new(bytes), bytes.len() as u64)?;
        let permit = in_flight::acquire(header.bytes);
        self.decode(bytes, &header, permit)
    }

    /// Stored width and height of the image file at `path`, read from its header.
    ///
    /// # Errors
    /// Same as [`Decoder::file`], as far as the header shows them.
    pub fn file_size(&self, path: &Path) -> Result<(u32, u32), DataError> {
        self.open(path).map(|(_, header)| (header.width, header.height))
    }

    /// Stored width and height of an image, read from its header.
    ///
    /// # Errors
    /// Same as [`Decoder::bytes`], as far as the header shows them.
    pub fn bytes_size(&self, bytes: &[u8]) -> Result<(u32, u32), String> {
        let header = self.checked(Cursor::new(bytes), bytes.len() as u64)?;
        Ok((header.width, header.height))
    }

    fn open(&self, path: &Path) -> Result<(File, Header), DataError> {
        let file = files::open_regular(path).map_err(|e| match e.kind() {
            ErrorKind::IsADirectory => DataError::read(path, "it is a folder, expected an image file"),
            _ => DataError::read(path, e),
        })?;
        let about = file.metadata().map_err(|e| DataError::read(path, e))?;
        let header = self.checked(BufReader::new(&file), about.len());
        let header = header.map_err(|message| DataError::read(path, message))?;
        Ok((file, header))
    }

    /// The header of an image in a file of `length` bytes, unless it is too large.
    fn checked(&self, source: impl BufRead + Seek, length: u64) -> Result<Header, String> {
        if length > MAX_FILE {
            return Err(format!("{length} bytes are too many for an image file"));
        }
        let header = header(source, length)?;
        let (width, height) = (header.width, header.height);
        match u64::from(width) * u64::from(height) {
            0 => Err("the image has no pixels".into()),
            pixels if pixels > self.max_pixels => Err(format!(
                "the image has {width} x {height} = {pixels} pixels, more than the limit of {}; scale it down, or raise \
                 max_image_pixels",
                self.max_pixels
            )),
            pixels if pixels.saturating_mul(header.depth) > self.max_pixels.saturating_mul(DEPTH) => Err(format!(
                "the image has {width} x {height} pixels of {} bytes, more than the limit of {} bytes; scale it down, store it with 8 bits \
                 per channel, or raise max_image_pixels",
                header.depth,
                self.max_pixels.saturating_mul(DEPTH)
            )),
            _ if width.max(height) > MAX_SIDE => Err(format!(
                "the image has {width} x {height} pixels, expected at most {MAX_SIDE} in a row or column"
            )),
            _ => Ok(header),
        }
    }

    fn decode(&self, bytes: &[u8], header: &Header, permit: Permit) -> Result<Decoded, String> {
        guarded(|| {
            let stored = match header.format {
                ImageFormat::Jpeg => of_jpeg(bytes)?,
                ImageFormat::Tiff => of_tiff(bytes)?,
                ImageFormat::Gif => Stored {
                    image: gif_pixels::Opened::new(bytes)?.read()?.into(),
                    orientation: Orientation::NoTransforms,
                    lost: None,
                },
                _ => of_image(bytes, header)?,
            };
            let Stored {
                mut image,
                orientation,
                mut lost,
            } = stored;
            let size = (image.width(), image.height());
            if size != (header.width, header.height) {
                return Err(format!(
                    "its header says {} x {} pixels, the image has {} x {}",
                    header.width, header.height, size.0, size.1
                ));
            }
            let turned = self.apply_orientation && orientation != Orientation::NoTransforms;
            if turned {
                image.apply_orientation(orientation);
            }
            Ok(Decoded {
                image: eight_bits(image, grey_png(bytes), &mut lost),
                turned,
                lost,
                _permit: permit,
            })
        })
    }
}

fn of_jpeg(bytes: &[u8]) -> Result<Stored, String> {
    let whole = jpeg::whole(bytes)?;
    let frame = jpeg::frame(whole).ok_or("the JPEG is damaged: its frame header is missing")?;
    let pixels = jpeg_pixels::rgb(whole, &frame)?;
    Ok(Stored {
        image: pixels.image.into(),
        orientation: pixels.orientation,
        lost: pixels.lost,
    })
}

fn of_tiff(bytes: &[u8]) -> Result<Stored, String> {
    let mut source = Cursor::new(bytes);
    let colours = tiff::colours(&mut source);
    source.set_position(0);
    let opened = tiff_pixels::Opened::new(source, colours)?;
    let orientation = opened.orientation;
    let pixels = opened.read(bytes)?;
    Ok(Stored {
        image: pixels.image.into(),
        orientation,
        lost: pixels.clipped.then(|| CLIPPED.into()),
    })
}

/// An image of the other formats.
fn of_image(bytes: &[u8], header: &Header) -> Result<Stored, String> {
    let bytes = match header.format {
        ImageFormat::Png => png::joined(bytes)?,
        _ => bytes.into(),
    };
    if header.format == ImageFormat::WebP {
        webp::check(&bytes)?;
    }
    let mut reader = ImageReader::with_format(Cursor::new(&bytes[..]), header.format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(header.bytes + BESIDE);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|e| e.to_string())?;
    // Damaged metadata is ignored.
    let exif = decoder.exif_metadata().ok().flatten();
    let xmp = decoder.xmp_metadata().ok().flatten();
    let orientation = orientation::of(exif.as_deref(), xmp.as_deref());
    Ok(Stored {
        image: DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?,
        orientation,
        lost: None,
    })
}

/// True for a PNG of grey, even if one of its values is transparent.
fn grey_png(bytes: &[u8]) -> bool {
    const COLOUR_TYPE: usize = 25;
    bytes.starts_with(b"\x89PNG") && bytes.get(COLOUR_TYPE) == Some(&0)
}

/// An image of any kind as RGB of 8 bits.
fn eight_bits(image: DynamicImage, grey: bool, lost: &mut Option<String>) -> RgbImage {
    let higher = |values: &[u16]| values.iter().map(|value| (value >> 8) as u8).collect::<Vec<u8>>();
    let (width, height) = (image.width(), image.height());
    let image = match image {
        DynamicImage::ImageLumaA16(_) if grey => DynamicImage::from(image.into_luma16()),
        other => other,
    };
    let rgb = match image {
        DynamicImage::ImageLuma16(grey) => {
            if grey.as_raw().iter().any(|value| *value > 255) {
                *lost = Some(CLIPPED.into());
            }
            let clipped = grey.into_raw().into_iter().map(|value| value.min(255) as u8).collect();
            GrayImage::from_raw(width, height, clipped).map(|grey| DynamicImage::from(grey).into_rgb8())
        }
        DynamicImage::ImageLumaA16(image) => image::GrayAlphaImage::from_raw(width, height, higher(image.as_raw()))
            .map(|image| DynamicImage::from(image).into_rgb8()),
        DynamicImage::ImageRgb16(image) => RgbImage::from_raw(width, height, higher(image.as_raw())),
        DynamicImage::ImageRgba16(image) => image::RgbaImage::from_raw(width, height, higher(image.as_raw()))
            .map(|image| DynamicImage::from(image).into_rgb8()),
        other => Some(other.into_rgb8()),
    };
    rgb.expect("as many values as before")
}

/// Decodes the image file at `path` with the usual limits, its EXIF orientation applied.
///
/// # Errors
/// As [`Decoder::file`].
pub fn file(path: &Path) -> Result<RgbImage, DataError> {
    Decoder::default().file(path).map(|decoded| decoded.image)
}

/// Decodes the bytes of an image file with the usual limits, its EXIF orientation applied.
///
/// # Errors
/// As [`Decoder::bytes`].
pub fn memory(bytes: &[u8]) -> Result<RgbImage, String> {
    Decoder::default().bytes(bytes).map(|decoded| decoded.image)
}

/// File name extension for the format of `bytes`.
///
/// # Errors
/// An unsupported format.
pub fn extension(bytes: &[u8]) -> Result<&'static str, String> {
    let format = format(bytes)?;
    Ok(format.extensions_str().first().copied().unwrap_or("image"))
}

/// The format of a file that begins with `start`.
fn format(start: &[u8]) -> Result<ImageFormat, String> {
    const READ: &str = "JPEG, PNG, GIF, BMP, WebP, TIFF and PNM are read";
    if start.is_empty() {
        return Err("the image has no bytes".into());
    }
    if start.get(4..8) == Some(b"ftyp") {
        let kind = match start.get(8..12) {
            Some(b"avif" | b"avis") => "AVIF image",
            Some(b"heic" | b"heix" | b"mif1" | b"hevc") => "HEIC image",
            _ => "film or image of MPEG-4's family",
        };
        return Err(format!("it is an {kind}; {READ}, convert it to one of them")
            .replace("an HEIC", "a HEIC")
            .replace("an film", "a film"));
    }
    if start.starts_with(b"II+\0") || start.starts_with(b"MM\0+") {
        return Ok(ImageFormat::Tiff); // of more than 4 GB, or made for it
    }
    match image::guess_format(start) {
        Ok(
            format @ (ImageFormat::Jpeg
            | ImageFormat::Png
            | ImageFormat::Gif
            | ImageFormat::Bmp
            | ImageFormat::WebP
            | ImageFormat::Tiff
            | ImageFormat::Pnm),
        ) => Ok(format),
        Ok(other) => {
            let name = other.extensions_str().first().unwrap_or(&"other").to_uppercase();
            Err(format!("it is a {name} image; {READ}, convert it to one of them"))
        }
        Err(_) => Err(format!("it is no image of a kind that is read; {READ}")),
    }
}

fn header(mut source: impl BufRead + Seek, length: u64) -> Result<Header, String> {
    let mut start = Vec::new();
    let read = |source: &mut dyn Read, start: &mut Vec<u8>, count: u64| {
        source.take(count).read_to_end(start).map_err(|e| e.to_string())
    };
    read(&mut source, &mut start, 32)?;
    let format = format(&start)?;
    if format == ImageFormat::Jpeg {
        // Metadata and colour profiles may precede the frame header.
        read(&mut source, &mut start, 1 << 16)?;
        if jpeg::frame(&start).is_none() {
            read(&mut source, &mut start, length)?;
        }
        let frame = jpeg::frame(&start).ok_or("the JPEG is cut off or damaged: its frame header is missing")?;
        return Ok(Header {
            format,
            width: frame.width,
            height: frame.height,
            depth: 3,
            bytes: length + frame.bytes(),
        });
    }
    source.rewind().map_err(|e| e.to_string())?;
    if format == ImageFormat::Tiff {
        tiff::check(&mut source, length)?;
        source.rewind().map_err(|e| e.to_string())?;
        let colours = tiff::colours(&mut source);
        source.rewind().map_err(|e| e.to_string())?;
        return guarded(|| {
            let opened = tiff_pixels::Opened::new(source, colours)?;
            Ok(Header {
                format,
                width: opened.width,
                height: opened.height,
                depth: opened.depth(),
                bytes: length.saturating_add(opened.bytes()),
            })
        });
    }
    if format == ImageFormat::Gif {
        return guarded(|| {
            let opened = gif_pixels::Opened::new(source)?;
            opened.check(length)?;
            Ok(Header {
                format,
                width: opened.width,
                height: opened.height,
                depth: 3,
                bytes: length.saturating_add(opened.bytes()),
            })
        });
    }
    if format == ImageFormat::Pnm {
        // Comments, blanks and zeros may go on before the size, and the decoder would read them to the end of the file.
        let mut start = Vec::new();
        read(&mut source, &mut start, LONGEST_PNM_HEADER)?;
        let is_all = start.len() as u64 == length;
        return of_other(Cursor::new(start), format, length).map_err(|message| match is_all {
            true => message,
            false => format!("its size is not in its first {LONGEST_PNM_HEADER} bytes, or is damaged: {message}"),
        });
    }
    of_other(source, format, length)
}

/// The header of an image that the image crate decodes.
fn of_other(source: impl BufRead + Seek, format: ImageFormat, length: u64) -> Result<Header, String> {
    // The chunks of a PNG may be joined in a second copy of the file.
    let file = length.saturating_mul(if format == ImageFormat::Png { 2 } else { 1 });
    guarded(|| {
        let mut reader = ImageReader::with_format(source, format);
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(BESIDE);
        reader.limits(limits);
        let decoder = reader.into_decoder().map_err(|e| e.to_string())?;
        let (width, height) = decoder.dimensions();
        let pixels = u64::from(width) * u64::from(height);
        let rgb = match decoder.color_type() {
            ColorType::Rgb8 => 0,
            _ => pixels.saturating_mul(3),
        };
        // It has the pixels once more, with alpha.
        let of_decoder = pixels.saturating_mul(if format == ImageFormat::WebP { 4 } else { 0 });
        Ok(Header {
            format,
            width,
            height,
            depth: u64::from(decoder.color_type().bytes_per_pixel()),
            bytes: file
                .saturating_add(decoder.total_bytes())
                .saturating_add(rgb)
                .saturating_add(of_decoder),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    fn noise(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([(x * y) as u8, (x * 7) as u8, (y * 5) as u8])
        })
    }

    #[test]
    fn a_jpeg_that_is_cut_off_is_refused_and_bytes_after_its_end_are_not() {
        let whole = written(&noise(40, 40).into(), ImageFormat::Jpeg);
        assert_eq!(memory(&whole).unwrap().dimensions(), (40, 40));
        for tail in [&b"made by a camera"[..], &[0xFF, 0xDA, 1, 2, 3, 0xFF, 0x00]] {
            assert_eq!(memory(&[&whole[..], tail].concat()), memory(&whole));
        }
        for cut in [whole.len() - 2, whole.len() * 3 / 4] {
            let message = memory(&whole[..cut]).unwrap_err();
            assert!(message.contains("cut off"), "{message}");
        }
    }

    #[test]
    fn a_pointer_of_git_lfs_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        std::fs::write(
            &path,
            "version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 12\n",
        )
        .unwrap();
        for message in [
            Decoder::default().file(&path).unwrap_err().to_string(),
            Decoder::default().file_size(&path).unwrap_err().to_string(),
        ] {
            assert!(
                message.contains("a.png") && message.contains("git lfs pull"),
                "{message}"
            );
        }
    }

    #[test]
    fn an_orientation_in_xmp_alone_is_applied() {
        let xmp = b"<rdf:Description tiff:Orientation=\"6\"/>";
        let mut jpeg = written(&noise(40, 30).into(), ImageFormat::Jpeg);
        let packet = [b"http://ns.adobe.com/xap/1.0/\0", &xmp[..]].concat();
        let length = (packet.len() as u16 + 2).to_be_bytes();
        jpeg.splice(2..2, [&[0xFF, 0xE1], &length[..], &packet].concat());
        let mut png = written(&noise(40, 30).into(), ImageFormat::Png);
        let chunk = [b"iTXtXML:com.adobe.xmp\0\0\0\0\0", &xmp[..]].concat();
        let crc = chunk.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)))
        });
        let length = (chunk.len() as u32 - 4).to_be_bytes();
        // After the signature and the header.
        png.splice(33..33, [&length[..], &chunk, &(!crc).to_be_bytes()].concat());
        for bytes in [jpeg, png] {
            let turned = Decoder::default().bytes(&bytes).unwrap();
            assert!(turned.turned);
            assert_eq!(turned.image.dimensions(), (30, 40));
            let stored = Decoder::of_benchmarks().bytes(&bytes).unwrap();
            assert_eq!(stored.image.dimensions(), (40, 30));
            assert_eq!(turned.image, image::imageops::rotate90(&stored.image));
        }
    }

    #[test]
    fn the_size_of_a_pnm_is_in_its_first_bytes() {
        let pixels = [7; 12];
        let with = |before: &[u8]| [&b"P6\n"[..], before, b"2 2 255\n", &pixels].concat();
        for before in [b"#a\n".repeat(10_000), b" ".repeat(30_000), b"0".repeat(30_000)] {
            assert_eq!(memory(&with(&before)).unwrap().into_raw(), pixels);
            let message = memory(&with(&before.repeat(3))).unwrap_err();
            assert!(message.contains("not in its first 65536 bytes"), "{message}");
        }
        // What is short is only damaged.
        let message = memory(b"P6\n2 x 255\n").unwrap_err();
        assert!(!message.contains("65536"), "{message}");
    }

    #[test]
    fn an_image_above_the_limit_is_refused_by_its_header_and_the_limit_is_a_setting() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Bmp] {
            let bytes = written(&noise(30, 20).into(), format);
            let decoder = |max_pixels| Decoder {
                max_pixels,
                ..Decoder::default()
            };
            assert!(decoder(600).bytes(&bytes).is_ok());
            for message in [
                decoder(599).bytes(&bytes).unwrap_err(),
                decoder(599).bytes_size(&bytes).unwrap_err(),
            ] {
                assert!(
                    message.contains("30 x 20 = 600 pixels, more than the limit of 599"),
                    "{message}"
                );
            }
            assert_eq!(Decoder::default().bytes_size(&bytes), Ok((30, 20)));
        }
    }

    #[test]
    fn a_limit_counts_deep_pixels_by_their_bytes_and_long_rows_have_one() {
        let decoder = Decoder {
            max_pixels: 600,
            ..Decoder::default()
        };
        let deep = DynamicImage::from(noise(30, 20)).into_rgba16();
        let message = decoder.bytes(&written(&deep.into(), ImageFormat::Png)).unwrap_err();
        assert!(
            message.contains("30 x 20 pixels of 8 bytes, more than the limit of 2400 bytes"),
            "{message}"
        );
        let alpha = DynamicImage::from(noise(30, 20)).into_rgba8();
        assert!(decoder.bytes(&written(&alpha.into(), ImageFormat::Png)).is_ok());
        let long = written(&noise(MAX_SIDE + 1, 1).into(), ImageFormat::Png);
        let message = Decoder::default().bytes(&long).unwrap_err();
        assert!(message.contains("at most 131072 in a row or column"), "{message}");
    }
}
