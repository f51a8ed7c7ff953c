//! The first frame of a GIF, as Pillow reads it: beside a frame that is smaller than the image is the first colour, or the
//! transparent one; a frame that is larger enlarges the image.

use std::io::Read;
use std::num::NonZeroU64;

use gif::{ColorOutput, DecodeOptions, Decoder, MemoryLimit};
use image::RgbImage;

/// Most bytes of a frame: no larger image is read by default.
const MOST: u64 = 1 << 30;

/// Most pixels that a byte of LZW may stand for: a code of 12 bits is a row of at most 4096 of them.
const MOST_PIXELS_A_BYTE: u64 = 4096;

/// An image of fewer pixels may have any size.
const LARGE: u64 = 1 << 24;

/// How many times as large as its first frame a larger one may be.
const MOST_CANVAS: u64 = 64;

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

    /// Compares the sizes that the headers claim with the `length` of the file.
    ///
    /// # Errors
    /// A file that cannot hold its first frame, or an image that is much larger than what is in it.
    pub(crate) fn check(&self, length: u64) -> Result<(), String> {
        let area = |width: u32, height: u32| u64::from(width) * u64::from(height);
        let [_, _, width, height] = self.frame;
        if area(width, height) > length.saturating_mul(MOST_PIXELS_A_BYTE) {
            return Err(format!(
                "the GIF is cut off: {length} bytes cannot hold the {width} x {height} pixels that it claims"
            ));
        }
        let canvas = area(self.width, self.height);
        if canvas > LARGE && canvas / MOST_CANVAS > area(width, height) {
            return Err(format!(
                "the GIF claims {} x {} pixels, but its first image has only {width} x {height}; save it again",
                self.width, self.height
            ));
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A GIF of `screen` x `screen` pixels with one frame of `frame` x `frame`, and codes for one pixel.
    fn headers(screen: u16, frame: u16) -> Vec<u8> {
        let [screen, frame] = [screen, frame].map(u16::to_le_bytes);
        // Two colours.
        let mut file = [&b"GIF89a"[..], &screen, &screen, &[0x80, 0, 0], &[0; 6]].concat();
        file.extend([&b",\0\0\0\0"[..], &frame, &frame, &[0, 2, 2, 0x4C, 1, 0], b";"].concat());
        file
    }

    #[test]
    fn sizes_that_the_file_does_not_fill_are_refused() {
        let checked = |screen, frame, length| Opened::new(&headers(screen, frame)[..])?.check(length);
        assert_eq!(checked(1000, 1000, 250), Ok(()));
        let message = checked(11_500, 11_500, 519).unwrap_err();
        assert!(message.contains("519 bytes cannot hold the 11500 x 11500"), "{message}");
        let message = checked(11_500, 1, 519).unwrap_err();
        assert!(
            message.contains("claims 11500 x 11500 pixels, but its first image"),
            "{message}"
        );
        assert_eq!(checked(1000, 1, 50), Ok(()));
        assert_eq!(checked(8000, 2000, 1 << 20), Ok(()));
    }
}
