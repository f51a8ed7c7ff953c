//! The first image of a TIFF file as RGB, as Pillow reads it: grey of 1 to 32 bits and floats, palettes, RGB, CMYK and
//! YCbCr, in strips or tiles, interleaved or in planes.
//!
//! The image crate has no palettes, YCbCr or 2- and 4-bit grey, and reads JPEG inside TIFF with a decoder that is not
//! libjpeg's equal; so the tiff crate is told that all samples are grey, and they are put together here.

use std::io::{Read, Seek};

use image::RgbImage;
use image::metadata::Orientation;
use tiff::decoder::{ChunkType, Decoder, DecodingResult, Limits};
use tiff::tags::{CompressionMethod, PlanarConfiguration, Tag};

use crate::tiff::{AsGrey, Colours, refused, xmp};
use crate::{cmyk, orientation, tiff_jpeg, tiff_parts};

/// Stands for an orientation that the file does not give.
const UNSAID: u16 = u16::MAX;

/// An image whose samples are still to be read.
pub(crate) struct Opened<S: Read + Seek> {
    decoder: Decoder<AsGrey<S>>,
    kind: Kind,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) orientation: Orientation,
    samples: usize,
    bits: usize,
    /// SampleFormat: 1 unsigned, 2 signed, 3 float.
    format: u16,
    compression: CompressionMethod,
    in_planes: bool,
    /// Colours have been multiplied by alpha.
    premultiplied: bool,
}

/// What the samples mean (PhotometricInterpretation).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Cmyk,
    YCbCr,
}

/// The pixels of a TIFF.
pub(crate) struct Pixels {
    pub(crate) image: RgbImage,
    /// True if values beyond 0 to 255 were clipped.
    pub(crate) clipped: bool,
}

impl<S: Read + Seek> Opened<S> {
    /// Reads the header of a file whose samples mean `colours`.
    ///
    /// # Errors
    /// A file that is damaged, or an image of a kind that is not read.
    pub(crate) fn new(mut source: S, colours: Option<Colours>) -> Result<Self, String> {
        let colours = colours.ok_or("the TIFF does not say how its colours are stored")?;
        let kind = kind(colours.kind)?;
        let xmp = xmp(&mut source);
        source.rewind().map_err(|e| e.to_string())?;
        let mut decoder = Decoder::new(AsGrey::new(source, colours)).map_err(refused)?;
        let (width, height) = decoder.dimensions().map_err(refused)?;
        let mut number = |tag: Tag, default: u16| match decoder.find_tag_unsigned_vec::<u16>(tag) {
            Ok(found) => Ok(found.and_then(|values| values.first().copied()).unwrap_or(default)),
            Err(error) => Err(refused(error)),
        };
        let samples = number(Tag::SamplesPerPixel, 1)?;
        let bits = number(Tag::BitsPerSample, 1)?;
        let format = number(Tag::SampleFormat, 1)?;
        let compression = CompressionMethod::from_u16_exhaustive(number(Tag::Compression, 1)?);
        let in_planes = number(Tag::PlanarConfiguration, 1)? == PlanarConfiguration::Planar.to_u16() && samples > 1;
        let premultiplied = samples > 1 && number(Tag::ExtraSamples, 0)? == 1;
        let orientation = number(Tag::Orientation, UNSAID)?;
        if number(Tag::FillOrder, 1)? != 1 {
            return Err(
                "the TIFF stores its bits in reverse order (FillOrder 2), which is not read; convert it".into(),
            );
        }
        let subsampled = decoder
            .find_tag_unsigned_vec::<u16>(Tag::ChromaSubsampling)
            .map_err(refused)?;
        if kind == Kind::YCbCr
            && compression != CompressionMethod::ModernJPEG
            && subsampled.is_some_and(|factors| factors != [1, 1])
        {
            return Err(
                "the TIFF stores fewer colours than pixels (YCbCrSubSampling), which is not read; convert it to RGB"
                    .into(),
            );
        }
        if compression == CompressionMethod::Fax4 && decoder.chunk_dimensions().1 > u16::MAX.into() {
            return Err(
                "the TIFF is fax group 4 in a strip of more than 65535 rows (RowsPerStrip), which is not read; convert it".into(),
            );
        }
        if let Some(name) = not_read(compression) {
            return Err(format!(
                "the TIFF is compressed with {name}; LZW, Deflate, PackBits, JPEG and fax group 4 are read, convert it"
            ));
        }
        let orientation = match orientation {
            UNSAID => orientation::of(None, xmp.as_deref()),
            said => {
                let said = u8::try_from(said).ok().and_then(Orientation::from_exif);
                said.unwrap_or(Orientation::NoTransforms)
            }
        };
        let opened = Self {
            decoder,
            kind,
            width,
            height,
            orientation,
            samples: samples.into(),
            bits: bits.into(),
            format,
            compression,
            in_planes,
            premultiplied,
        };
        opened.check()?;
        // A part may be larger than the image: it is decoded whole.
        let (across, down) = opened.part();
        if u64::from(across) * u64::from(down) > (1 << 24).max(u64::from(width) * u64::from(height)) {
            return Err(format!(
                "the TIFF is stored in tiles of {across} x {down} pixels, more than its image has; convert it"
            ));
        }
        // The tiff crate takes the tiles of later planes for tiles outside the image.
        if opened.in_planes && opened.decoder.get_chunk_type() == ChunkType::Tile {
            return Err("the TIFF stores its colours apart and in tiles, which is not read; convert it".into());
        }
        Ok(opened)
    }

    /// Columns and rows of a strip or tile. A strip may say that it has more rows than the image: it ends with it, up to the
    /// block of a JPEG.
    fn part(&self) -> (u32, u32) {
        /// Rows of a JPEG's largest block: a strip's last rows may be filled up to it.
        const BLOCK: u32 = 32;
        let (across, down) = self.decoder.chunk_dimensions();
        match self.decoder.get_chunk_type() {
            ChunkType::Strip => (across, down.min(self.height.saturating_add(BLOCK - 1) / BLOCK * BLOCK)),
            ChunkType::Tile => (across, down),
        }
    }

    /// Refuses combinations of colours, samples and bits that Pillow does not read.
    fn check(&self) -> Result<(), String> {
        let (samples, bits, format) = (self.samples, self.bits, self.format);
        let read = match self.kind {
            Kind::WhiteIsZero | Kind::BlackIsZero => match (samples, format) {
                (1, 1) => matches!(bits, 1 | 2 | 4 | 8 | 16 | 32),
                (1, 2) => matches!(bits, 8 | 16 | 32),
                (1, 3) => bits == 32,
                (2, 1) => bits == 8,
                _ => false,
            },
            Kind::Palette => format == 1 && matches!((samples, bits), (1, 1 | 2 | 4 | 8) | (2, 8)),
            Kind::Rgb => format == 1 && matches!((samples, bits), (3..=6, 8) | (3 | 4, 16)),
            Kind::Cmyk => format == 1 && matches!((samples, bits), (4..=6, 8) | (4, 16)),
            Kind::YCbCr => format == 1 && matches!((samples, bits), (1 | 3, 8)),
        };
        let jpeg = self.compression == CompressionMethod::ModernJPEG;
        if !read || (jpeg && (bits != 8 || self.in_planes || self.premultiplied || self.kind == Kind::Palette)) {
            let format = match format {
                1 => "",
                2 => " signed",
                3 => " float",
                _ => " untyped",
            };
            return Err(format!(
                "the TIFF has {samples} samples of {bits}{format} bits per pixel, stored as {}{}; that is not read, convert \
                 it to 8 bits",
                self.kind.name(),
                if jpeg { " in JPEG" } else { "" }
            ));
        }
        Ok(())
    }

    /// Refuses strips or tiles that have far more bytes together than the file has.
    fn check_parts(&mut self, file: u64) -> Result<(), String> {
        if self.compression == CompressionMethod::None {
            // Its parts are read as far as they have pixels.
            return Ok(());
        }
        let lengths = match self.decoder.get_chunk_type() {
            ChunkType::Strip => Tag::StripByteCounts,
            ChunkType::Tile => Tag::TileByteCounts,
        };
        let lengths = self.decoder.get_tag_u64_vec(lengths).map_err(refused)?;
        let (across, down) = self.part();
        let pixels = (u64::from(across) * u64::from(down)).saturating_mul(lengths.len() as u64);
        let bits = pixels.saturating_mul((self.samples * self.bits) as u64);
        tiff_parts::check(&lengths, file, bits / 8)
    }

    /// Bytes of a stored pixel.
    pub(crate) fn depth(&self) -> u64 {
        (self.samples as u64).saturating_mul(self.bits as u64).div_ceil(8)
    }

    /// Memory that decoding takes.
    pub(crate) fn bytes(&self) -> u64 {
        let pixels = u64::from(self.width) * u64::from(self.height);
        let row = (u64::from(self.width) * self.samples as u64 * self.bits as u64).div_ceil(8);
        match self.compression {
            CompressionMethod::ModernJPEG => {
                let (across, down) = self.part();
                3 * pixels + 12 * u64::from(across) * u64::from(down)
            }
            _ => row.saturating_mul(self.height.into()).saturating_add(3 * pixels),
        }
    }

    /// Reads the samples. `file` is the whole file.
    ///
    /// # Errors
    /// A file that is cut off or damaged.
    pub(crate) fn read(mut self, file: &[u8]) -> Result<Pixels, String> {
        self.check_parts(file.len() as u64)?;
        if self.compression == CompressionMethod::ModernJPEG {
            let colours = match self.kind {
                Kind::YCbCr => tiff_jpeg::Colours::YCbCr,
                Kind::Cmyk => tiff_jpeg::Colours::Cmyk,
                _ => tiff_jpeg::Colours::AsStored,
            };
            let part = self.part();
            let mut image = tiff_jpeg::read(&mut self.decoder, file, part, self.samples, colours)?;
            if self.kind == Kind::WhiteIsZero {
                image.iter_mut().for_each(|value| *value = 255 - *value);
            }
            return Ok(Pixels { image, clipped: false });
        }
        let palette = match self.kind {
            Kind::Palette => self.palette()?,
            _ => Vec::new(),
        };
        let mut limits = Limits::default();
        limits.decoding_buffer_size = usize::try_from(self.bytes()).map_err(|e| e.to_string())?;
        limits.intermediate_buffer_size = limits.decoding_buffer_size.saturating_add(file.len());
        self.decoder = self.decoder.with_limits(limits);
        let mut stored = DecodingResult::U8(Vec::new());
        let layout = self.decoder.read_image_to_buffer(&mut stored).map_err(refused)?;
        if stored.as_buffer(0).byte_len() < layout.complete_len {
            return Err("the TIFF has fewer planes than it claims".into());
        }
        let mut clipped = false;
        let values = Values {
            bytes: match stored {
                DecodingResult::U16(values) if matches!(self.kind, Kind::Rgb | Kind::Cmyk) => {
                    values.into_iter().map(|value| (value >> 8) as u8).collect()
                }
                grey => bytes(grey, self.bits, &mut clipped)?,
            },
            samples: self.samples,
            in_planes: self.in_planes,
            bits: self.bits.min(8),
            width: self.width as usize,
            height: self.height as usize,
        };
        let plain = self.kind == Kind::Rgb && self.samples == 3 && !self.in_planes;
        let pixels = if plain {
            values.bytes
        } else {
            self.colours(&values, &palette)?
        };
        let image =
            RgbImage::from_raw(self.width, self.height, pixels).ok_or("the TIFF has fewer pixels than it claims")?;
        Ok(Pixels { image, clipped })
    }

    /// The colours of a palette.
    fn palette(&mut self) -> Result<Vec<[u8; 3]>, String> {
        let map = self.decoder.get_tag_u16_vec(Tag::ColorMap).map_err(refused)?;
        let count = 1 << self.bits;
        if map.len() != 3 * count {
            return Err(format!(
                "the TIFF is damaged: its palette has {} values, expected {}",
                map.len(),
                3 * count
            ));
        }
        let colour = |index: usize| [0, 1, 2].map(|channel| (map[channel * count + index] >> 8) as u8);
        Ok((0..count).map(colour).collect())
    }

    fn colours(&self, values: &Values, palette: &[[u8; 3]]) -> Result<Vec<u8>, String> {
        let count = values.width * values.height;
        let channels = if self.kind == Kind::Cmyk { 4 } else { 3 };
        let mut pixels = Vec::with_capacity(channels * count);
        let most = (1_u16 << values.bits) - 1;
        // Pillow inverts 8 bits and fewer only.
        let inverted = self.kind == Kind::WhiteIsZero && self.bits <= 8;
        for y in 0..values.height {
            for x in 0..values.width {
                let value = |sample| {
                    values
                        .at(x, y, sample)
                        .ok_or("the TIFF has fewer pixels than it claims")
                };
                match self.kind {
                    Kind::WhiteIsZero | Kind::BlackIsZero => {
                        let grey = (u16::from(value(0)?) * 255 / most) as u8;
                        let grey = if inverted { 255 - grey } else { grey };
                        let grey = if self.premultiplied {
                            divided(grey, value(1)?)
                        } else {
                            grey
                        };
                        pixels.extend([grey; 3]);
                    }
                    Kind::Palette => pixels.extend(palette[usize::from(value(0)?)]),
                    Kind::Rgb if self.premultiplied && self.samples > 3 => {
                        let alpha = value(3)?;
                        pixels.extend([
                            divided(value(0)?, alpha),
                            divided(value(1)?, alpha),
                            divided(value(2)?, alpha),
                        ]);
                    }
                    Kind::YCbCr if self.samples == 1 => pixels.extend([value(0)?; 3]),
                    Kind::YCbCr => pixels.extend(rgb_of(value(0)?, value(1)?, value(2)?)),
                    Kind::Rgb => pixels.extend([value(0)?, value(1)?, value(2)?]),
                    Kind::Cmyk => pixels.extend([value(0)?, value(1)?, value(2)?, value(3)?]),
                }
            }
        }
        if self.kind == Kind::Cmyk {
            cmyk::to_rgb(&mut pixels);
        }
        Ok(pixels)
    }
}

/// Samples of at most 8 bits.
struct Values {
    bytes: Vec<u8>,
    samples: usize,
    in_planes: bool,
    bits: usize,
    width: usize,
    height: usize,
}

impl Values {
    fn at(&self, x: usize, y: usize, sample: usize) -> Option<u8> {
        if self.bits < 8 {
            // Rows begin at whole bytes; the first pixel is in the highest bits.
            let stride = (self.width * self.bits).div_ceil(8);
            let byte = self.bytes.get(y * stride + x * self.bits / 8)?;
            let shift = 8 - self.bits - x * self.bits % 8;
            return Some(byte >> shift & ((1 << self.bits) - 1));
        }
        let pixel = y * self.width + x;
        let at = match self.in_planes {
            true => sample * self.width * self.height + pixel,
            false => pixel * self.samples + sample,
        };
        self.bytes.get(at).copied()
    }
}

/// Samples of grey, clipped to bytes.
fn bytes(stored: DecodingResult, bits: usize, clipped: &mut bool) -> Result<Vec<u8>, String> {
    let mut clip = |inside: bool, value: u8| {
        *clipped |= !inside;
        value
    };
    Ok(match stored {
        DecodingResult::U8(values) => values,
        DecodingResult::I8(values) => values.into_iter().map(|value| value as u8).collect(),
        DecodingResult::U16(values) => values.into_iter().map(|v| clip(v <= 255, v.min(255) as u8)).collect(),
        DecodingResult::I16(values) => values
            .into_iter()
            .map(|v| clip((0..=255).contains(&v), v.clamp(0, 255) as u8))
            .collect(),
        DecodingResult::U32(values) => values.into_iter().map(|v| clip(v <= 255, v.min(255) as u8)).collect(),
        DecodingResult::I32(values) => values
            .into_iter()
            .map(|v| clip((0..=255).contains(&v), v.clamp(0, 255) as u8))
            .collect(),
        // `as` rounds towards zero and clips.
        DecodingResult::F32(values) => values
            .into_iter()
            .map(|v| clip((0.0..256.0).contains(&v), v as u8))
            .collect(),
        _ => return Err(format!("the TIFF has samples of {bits} bits, which are not read")),
    })
}

/// A colour without the alpha that it was multiplied with.
fn divided(value: u8, alpha: u8) -> u8 {
    match alpha {
        0 => value,
        _ => (255 * u32::from(value) / u32::from(alpha)).min(255) as u8,
    }
}

/// The colours of JPEG's YCbCr.
fn rgb_of(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(|value| value.round() as u8)
}

fn kind(photometric: u16) -> Result<Kind, String> {
    Ok(match photometric {
        0 => Kind::WhiteIsZero,
        1 => Kind::BlackIsZero,
        2 => Kind::Rgb,
        3 => Kind::Palette,
        5 => Kind::Cmyk,
        6 => Kind::YCbCr,
        other => {
            let name = match other {
                4 => "a mask".to_string(),
                8..=10 => "LAB colours".to_string(),
                32803 | 34892 => "a camera's raw values".to_string(),
                _ => format!("colours of kind {other}"),
            };
            return Err(format!(
                "the TIFF has {name}; grey, palettes, RGB, CMYK and YCbCr are read, convert it to RGB"
            ));
        }
    })
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::WhiteIsZero | Self::BlackIsZero => "grey",
            Self::Rgb => "RGB",
            Self::Palette => "a palette",
            Self::Cmyk => "CMYK",
            Self::YCbCr => "YCbCr",
        }
    }
}

/// The name of a compression that is not read.
fn not_read(compression: CompressionMethod) -> Option<String> {
    match compression {
        CompressionMethod::None
        | CompressionMethod::LZW
        | CompressionMethod::Deflate
        | CompressionMethod::OldDeflate
        | CompressionMethod::PackBits
        | CompressionMethod::ModernJPEG
        | CompressionMethod::Fax4 => None,
        other => Some(match other.to_u16() {
            2 | 3 => "fax group 3".into(),
            6 => "JPEG in the way of before 1995".into(),
            33003..=33005 | 34712 => "JPEG 2000".into(),
            34925 => "LZMA".into(),
            50000 => "Zstandard".into(),
            50001 => "WebP".into(),
            number => format!("method {number}"),
        }),
    }
}
