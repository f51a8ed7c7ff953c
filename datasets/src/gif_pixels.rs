//! The first frame of a GIF, as Pillow reads it: beside a frame that is smaller than the image is the first colour, or the
//! transparent one; a frame that is larger enlarges the image.

use std::io::Read;
use std::num::NonZeroU64;

use gif::{ColorOutput, DecodeOptions, Decoder, MemoryLimit};
use image::RgbImage;

/// Most bytes of a frame: no larger image is read by default.
const MOST: u64 = 1 << 30;

/// An image whose pixels are still to be read.
pub(crate) struct Opened<R: Read> {
    decoder: Decoder<R>,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Position and size of the first frame.
    frame: [u32; 4],
    transparent: Option<u8>,
}

impl<R: Read> Opened<R> {
    /// Reads the header and that of the first frame.
    ///
    /// # Errors
    /// A file that is cut off or damaged.
    pub(crate) fn new(source: R) -> Result<Self, String> {
        let mut options = DecodeOptions::new();
        options.set_color_output(ColorOutput::Indexed);
        options.set_memory_limit(NonZeroU64::new(MOST).map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes));
        let mut decoder = options.read_info(source).map_err(|e| e.to_string())?;
        let screen = (u32::from(decoder.width()), u32::from(decoder.height()));
        let first = decoder.next_frame_info().map_err(|e| e.to_string())?;
        let first = first.ok_or("the GIF has no image in it")?;
        let frame = [first.left, first.top, first.width, first.height].map(u32::from);
        let transparent = first.transparent;
        Ok(Self {
            width: screen.0.max(frame[0] + frame[2]),
            height: screen.1.max(frame[1] + frame[3]),
            frame,
            transparent,
            decoder,
        })
    }

    /// Memory that decoding takes.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height) * 3 + u64::from(self.frame[2]) * u64::from(self.frame[3])
    }

    /// Reads the pixels.
    ///
    /// # Errors
    /// A file that is cut off or damaged.
    pub(crate) fn read(mut self) -> Result<RgbImage, String> {
        let mut indices = vec![0; self.decoder.buffer_size()];
        self.decoder.read_into_buffer(&mut indices).map_err(|e| e.to_string())?;
        let palette = self.decoder.palette().unwrap_or_default();
        // Colours that the palette lacks are shades of grey.
        let colour = |index: u8| {
            let from = 3 * usize::from(index);
            let found = palette.get(from..from + 3);
            image::Rgb(found.map_or([index; 3], |found| [found[0], found[1], found[2]]))
        };
        let mut image = RgbImage::from_pixel(self.width, self.height, colour(self.transparent.unwrap_or(0)));
        let [left, top, width, height] = self.frame;
        let rows = indices.chunks_exact(width.max(1) as usize).take(height as usize);
        for (y, row) in (top..).zip(rows) {
            for (x, index) in (left..).zip(row) {
                image.put_pixel(x, y, colour(*index));
            }
        }
        Ok(image)
    }
}
