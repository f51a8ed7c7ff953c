//! The structure of a JPEG file: its frame header and its end, found without decoding (ITU-T T.81, annex B).

/// Contents of the frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Bits of a sample.
    pub(crate) precision: u8,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) components: u8,
    /// Horizontal and vertical sampling factors of the first four components; those that are missing have (0, 0).
    pub(crate) sampling: [(u8, u8); 4],
    /// True for progressive files, for which a decoder holds the coefficients of the whole image.
    pub(crate) progressive: bool,
}

impl Frame {
    /// The greatest sampling factors.
    pub(crate) fn finest(&self) -> (u8, u8) {
        let (across, down): (Vec<u8>, Vec<u8>) = self.sampling.into_iter().unzip();
        (across.into_iter().fold(1, u8::max), down.into_iter().fold(1, u8::max))
    }

    /// Most bytes that decoding takes: the components in whole blocks, their coefficients in 16 bits if they are held,
    /// those that are stored smaller once more in full size, and the pixels.
    pub(crate) fn bytes(&self) -> u64 {
        let (across, down) = self.finest();
        let blocks =
            |length: u32, factor: u8, finest: u8| u64::from(length.div_ceil(8 * u32::from(finest))) * u64::from(factor);
        let full = 64 * blocks(self.width, across, across) * blocks(self.height, down, down);
        let of_components = self
            .sampling
            .into_iter()
            .filter(|factors| *factors != (0, 0))
            .map(|(h, v)| {
                let own = 64 * blocks(self.width, h, across) * blocks(self.height, v, down);
                let held = if self.progressive { 2 * own + own / 64 * 8 } else { 0 };
                own + held + if (h, v) == (across, down) { 0 } else { full }
            });
        let pixels = u64::from(self.width) * u64::from(self.height);
        // Of four components the decoder makes the pixels twice.
        let out = if self.components == 4 { 8 } else { 3 };
        of_components.sum::<u64>() + pixels * out
    }
}

const START: u8 = 0xD8;
const END: u8 = 0xD9;
const SCAN: u8 = 0xDA;

/// Maximum pixels per byte; a file with more must be truncated. Each block of 64 pixels takes at least one bit; the
/// rest is a margin for subsampled components.
const MOST_PIXELS_A_BYTE: u64 = 2048;

/// The frame header; `None` if it is not in `bytes`.
pub(crate) fn frame(bytes: &[u8]) -> Option<Frame> {
    let mut found = None;
    walk(bytes, |code, segment| {
        // C4, C8 and CC are Huffman tables, an extension and arithmetic conditioning.
        if !matches!(code, 0xC0..=0xCF) || matches!(code, 0xC4 | 0xC8 | 0xCC) {
            return true;
        }
        if let [precision, h1, h0, w1, w0, components, ref rest @ ..] = *segment {
            let mut sampling = [(0, 0); 4];
            let listed = rest.chunks_exact(3).take(components.into());
            for (factors, component) in sampling.iter_mut().zip(listed) {
                *factors = (component[1] >> 4, component[1] & 15);
            }
            found = Some(Frame {
                precision,
                width: u16::from_be_bytes([w1, w0]).into(),
                height: u16::from_be_bytes([h1, h0]).into(),
                components,
                sampling,
                progressive: matches!(code, 0xC2 | 0xC6 | 0xCA | 0xCE),
            });
        }
        false
    });
    found
}

/// The bytes up to and including the end marker; what follows is not part of the JPEG (in a phone's motion photo, it is
/// a video).
///
/// # Errors
/// A truncated file: a decoder would fill the rest with grey, and an image without its lower half should not be used
/// for training.
pub(crate) fn whole(bytes: &[u8]) -> Result<&[u8], String> {
    let mut scans = 0;
    let end = walk(bytes, |code, _| {
        scans += usize::from(code == SCAN);
        true
    });
    let whole = match end {
        Some(end) if scans > 0 => &bytes[..end],
        Some(_) => return Err("the JPEG is damaged: there is no scan in it".into()),
        None => return Err("the JPEG is cut off: its end marker is missing".into()),
    };
    match frame(whole) {
        Some(Frame { width, height, .. })
            if u64::from(width) * u64::from(height) > whole.len() as u64 * MOST_PIXELS_A_BYTE =>
        {
            Err(format!(
                "the JPEG is cut off: {} bytes cannot hold the {width} x {height} pixels that it claims",
                whole.len()
            ))
        }
        _ => Ok(whole),
    }
}

/// Calls `each` with the marker code and content of each segment until it returns false; returns the position after the
/// end marker if that is reached. Between segments is entropy-coded data, in which 0xFF is followed by 0 or by a
/// restart marker.
fn walk(bytes: &[u8], mut each: impl FnMut(u8, &[u8]) -> bool) -> Option<usize> {
    let mut at = 0;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0xFF)?;
        at += bytes[at..].iter().position(|byte| *byte != 0xFF)?;
        let code = bytes[at];
        at += 1;
        match code {
            END => return Some(at),
            0x00 | 0x01 | 0xD0..=0xD7 | START => continue,
            _ => {}
        }
        let length = usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        // A length includes its own two bytes; a smaller value is damage, which the decoder reports.
        let segment = bytes.get(at + 2..at + length.max(2))?;
        if !each(code, segment) {
            return None;
        }
        at += length.max(2);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, RgbImage};

    use super::*;

    fn noise() -> Vec<u8> {
        let noise = RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * y) as u8, (x * 7) as u8, (y * 5) as u8]));
        let mut file = Cursor::new(Vec::new());
        noise.write_to(&mut file, ImageFormat::Jpeg).unwrap();
        file.into_inner()
    }

    #[test]
    fn the_frame_and_the_end_are_found() {
        let file = noise();
        let found = frame(&file).unwrap();
        assert_eq!((found.width, found.height, found.components), (40, 30, 3));
        assert_eq!((found.precision, found.progressive), (8, false));
        assert_eq!(found.sampling[1..], [(1, 1), (1, 1), (0, 0)]);
        assert_eq!(whole(&file).unwrap().len(), file.len());
        // After the end marker anything may follow, even bytes that look like a scan or an end marker.
        for tail in [&b"film"[..], &[0xFF, 0xDA, 0, 9], &[0xFF, 0xD9], &file] {
            assert_eq!(whole(&[&file, tail].concat()).unwrap().len(), file.len());
        }
    }

    #[test]
    fn what_is_cut_off_is_told() {
        let file = noise();
        for length in 0..file.len() {
            assert!(whole(&file[..length]).is_err(), "{length}");
        }
        let start = file.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        let mut huge = file.clone();
        huge[start + 5..start + 9].copy_from_slice(&[0x32, 0xC8, 0x32, 0xC8]);
        assert!(
            whole(&huge)
                .unwrap_err()
                .contains("cannot hold the 13000 x 13000 pixels")
        );
    }
}
