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

    /// Blocks of 64 samples, of all components together.
    fn blocks(&self) -> u64 {
        let (across, down) = self.finest();
        let blocks = |length: u32, finest: u8| u64::from(length.div_ceil(8 * u32::from(finest)));
        let in_each = blocks(self.width, across) * blocks(self.height, down);
        let factors = self.sampling.into_iter().map(|(h, v)| u64::from(h) * u64::from(v));
        in_each * factors.sum::<u64>()
    }

    /// Refuses scans that would keep a decoder busy for minutes: each is a pass over all blocks of its components, even if
    /// it takes a few bytes.
    ///
    /// # Errors
    /// Too many `scans` for the size of the image.
    fn check_scans(&self, scans: usize) -> Result<(), String> {
        if scans <= MOST_SCANS || self.blocks().saturating_mul(scans as u64) <= MOST_VISITS {
            return Ok(());
        }
        Err(format!(
            "the JPEG has {} x {} pixels in {scans} scans; an image of this size may have at most {MOST_SCANS}; save it again",
            self.width, self.height
        ))
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

/// Scans of an image of any size. The usual progressive file has about ten, and a program that tries hard writes twenty.
pub(crate) const MOST_SCANS: usize = 64;

/// Blocks that more scans than these may pass over: some seconds of work.
const MOST_VISITS: u64 = 1 << 26;

/// Segments of a file: a few dozen are usual, and the colour profile and the metadata may take some hundred.
const MOST_SEGMENTS: usize = 1 << 16;

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

/// The number of scans.
pub(crate) fn scans(bytes: &[u8]) -> usize {
    let mut scans = 0;
    walk(bytes, |code, _| {
        scans += usize::from(code == SCAN);
        true
    });
    scans
}

/// The bytes up to and including the end marker; what follows is not part of the JPEG (in a phone's motion photo, it is
/// a video).
///
/// # Errors
/// A truncated file: a decoder would fill the rest with grey, and an image without its lower half should not be used
/// for training. Also more scans or segments than any program writes.
pub(crate) fn whole(bytes: &[u8]) -> Result<&[u8], String> {
    let mut scans = 0;
    let mut segments = 0;
    let end = walk(bytes, |code, _| {
        scans += usize::from(code == SCAN);
        segments += 1;
        segments <= MOST_SEGMENTS
    });
    if segments > MOST_SEGMENTS {
        return Err(format!(
            "the JPEG is damaged: it has more than {MOST_SEGMENTS} segments"
        ));
    }
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
        Some(frame) => frame.check_scans(scans).map(|()| whole),
        None => Ok(whole),
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
    fn scans_are_limited_by_the_size_of_the_image() {
        let frame = |width, height| Frame {
            precision: 8,
            width,
            height,
            components: 3,
            sampling: [(2, 2), (1, 1), (1, 1), (0, 0)],
            progressive: true,
        };
        // 64 MCUs of six blocks in each direction.
        assert_eq!(frame(1024, 1024).blocks(), 64 * 64 * 6);
        assert_eq!(frame(1009, 1023).blocks(), 64 * 64 * 6);
        assert_eq!(frame(1024, 1024).check_scans(1000), Ok(()));
        let large = frame(11_500, 11_500);
        assert_eq!(large.check_scans(MOST_SCANS), Ok(()));
        let message = large.check_scans(MOST_SCANS + 1).unwrap_err();
        assert!(message.contains("11500 x 11500 pixels in 65 scans"), "{message}");
    }

    #[test]
    fn a_file_says_how_many_scans_and_segments_it_has() {
        let file = noise();
        let scan = file.windows(2).position(|pair| pair == [0xFF, SCAN]).unwrap();
        let (head, rest) = file.split_at(scan);
        let end = rest.len() - 2;
        // The size is in the frame header, the scans after it.
        let mut large = head.to_vec();
        let start = large.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        large[start + 5..start + 9].copy_from_slice(&[0x08, 0, 0x08, 0]);
        let with = |head: &[u8], count: usize| [head, &rest[..end].repeat(count), &rest[end..]].concat();
        assert!(whole(&with(&large, MOST_SCANS)).is_ok());
        let many = with(&large, 700);
        assert!(whole(&many).unwrap_err().contains("2048 x 2048 pixels in 700 scans"));
        // The same scans of a small image are no work.
        assert!(whole(&with(head, 700)).is_ok());
        let comments = |count: usize| [head, &b"\xFF\xFE\0\x02".repeat(count), rest].concat();
        assert!(whole(&comments(1000)).is_ok());
        let message = whole(&comments(MOST_SEGMENTS)).unwrap_err();
        assert!(message.contains("more than 65536 segments"), "{message}");
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
