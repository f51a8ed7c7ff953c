//! The structure of a JPEG file: its frame header and its end, found without decoding (ITU-T T.81, annex B).

/// What the frame header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) components: u8,
    /// A decoder holds the coefficients of the whole image.
    pub(crate) progressive: bool,
}

const START: u8 = 0xD8;
const END: u8 = 0xD9;
const SCAN: u8 = 0xDA;

/// A file of fewer bytes for its pixels is cut off. Each block of 64 pixels takes a bit at least; the rest is margin for
/// components that are stored smaller.
const MOST_PIXELS_A_BYTE: u64 = 2048;

/// The frame header; `None` if it does not lie in `bytes`.
pub(crate) fn frame(bytes: &[u8]) -> Option<Frame> {
    let mut found = None;
    walk(bytes, |code, segment| {
        // C4, C8 and CC are Huffman tables, an extension and arithmetic conditioning.
        if !matches!(code, 0xC0..=0xCF) || matches!(code, 0xC4 | 0xC8 | 0xCC) {
            return true;
        }
        if let [_, h1, h0, w1, w0, components, ..] = *segment {
            found = Some(Frame {
                width: u16::from_be_bytes([w1, w0]).into(),
                height: u16::from_be_bytes([h1, h0]).into(),
                components,
                progressive: matches!(code, 0xC2 | 0xC6 | 0xCA | 0xCE),
            });
        }
        false
    });
    found
}

/// The bytes up to and with the end marker: what follows it is not the JPEG's (a phone's motion photo has a film there).
///
/// # Errors
/// A file that is cut off: a decoder would fill the rest with grey, and an image that lost its lower half should not be
/// trained on.
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

/// Gives each segment's marker code and content to `each` until that returns false; the place after the end marker if it
/// is reached. Entropy-coded data lies between segments: in it 0xFF is followed by 0 or by a restart marker.
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
        // A length counts its own two bytes; less is damage, which the decoder names.
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
        assert!(!found.progressive);
        assert_eq!(whole(&file).unwrap().len(), file.len());
        // Behind the end anything may follow, also what looks like a scan or an end.
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
