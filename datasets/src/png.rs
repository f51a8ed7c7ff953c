//! The chunks of a PNG file, looked at before it is decoded: the decoder clears a buffer for each chunk of pixels, so that
//! a small file of many empty ones would keep it busy for minutes.

use std::borrow::Cow;

use flate2::Crc;

/// Fewer chunks of pixels are left as they are.
const MANY: usize = 1024;
/// So are chunks that are longer than this on average. Programs write 8 KiB and more.
const SHORT: usize = 4096;

const SIGNATURE: usize = 8;
/// The length and the name of a chunk.
const HEAD: usize = 8;
const PIXELS: &[u8] = b"IDAT";

/// The file, with its pixels in one chunk if they are in many short ones.
///
/// # Errors
/// Many short chunks that are cut off or damaged. All else is left to the decoder.
pub(crate) fn joined(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let mut at = SIGNATURE;
    while let Some(chunk) = Chunk::at(bytes, at)
        && chunk.name != PIXELS
    {
        at = chunk.end;
    }
    let start = at;
    let (mut count, mut length) = (0, 0);
    while let Some(chunk) = Chunk::at(bytes, at)
        && chunk.name == PIXELS
    {
        at = chunk.end;
        count += 1;
        length += chunk.content.len();
    }
    if count < MANY || length > SHORT.saturating_mul(count) {
        return Ok(bytes.into());
    }
    let end = at;
    if Chunk::at(bytes, end).is_none() {
        return Err("the PNG is cut off".into());
    }
    let mut file = Vec::with_capacity(bytes.len());
    file.extend_from_slice(&bytes[..start]);
    file.extend_from_slice(&u32::try_from(length).map_err(|e| e.to_string())?.to_be_bytes());
    file.extend_from_slice(PIXELS);
    let mut crc = Crc::new();
    crc.update(PIXELS);
    at = start;
    while at < end
        && let Some(chunk) = Chunk::at(bytes, at)
    {
        if chunk.crc != chunk.right_crc() {
            return Err("the PNG is damaged: the checksum of a chunk of its pixels is wrong".into());
        }
        crc.update(chunk.content);
        file.extend_from_slice(chunk.content);
        at = chunk.end;
    }
    file.extend_from_slice(&crc.sum().to_be_bytes());
    file.extend_from_slice(&bytes[end..]);
    Ok(file.into())
}

struct Chunk<'a> {
    name: &'a [u8],
    content: &'a [u8],
    crc: u32,
    /// Position after it.
    end: usize,
}

impl<'a> Chunk<'a> {
    /// The chunk at that position; `None` if it is cut off.
    fn at(bytes: &'a [u8], at: usize) -> Option<Self> {
        let (head, rest) = bytes.get(at..)?.split_at_checked(HEAD)?;
        let (length, name) = head.split_first_chunk()?;
        let (content, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        let crc: &[u8; 4] = rest.first_chunk()?;
        Some(Self {
            name,
            content,
            crc: u32::from_be_bytes(*crc),
            end: at + HEAD + content.len() + crc.len(),
        })
    }

    fn right_crc(&self) -> u32 {
        let mut crc = Crc::new();
        crc.update(self.name);
        crc.update(self.content);
        crc.sum()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, RgbImage};

    use super::*;

    fn chunk(name: &[u8], content: &[u8]) -> Vec<u8> {
        let mut crc = Crc::new();
        crc.update(name);
        crc.update(content);
        let length = (content.len() as u32).to_be_bytes();
        [&length[..], name, content, &crc.sum().to_be_bytes()].concat()
    }

    /// An image, and the same with its pixels in a chunk for each byte and `empty` chunks before them.
    fn image_in_parts(empty: usize) -> (RgbImage, Vec<u8>) {
        let image = RgbImage::from_fn(20, 30, |x, y| image::Rgb([(x * y) as u8, (x * 7) as u8, (y * 5) as u8]));
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, ImageFormat::Png).unwrap();
        let file = file.into_inner();
        let start = file.windows(4).position(|name| name == PIXELS).unwrap() - 4;
        let whole = Chunk::at(&file, start).unwrap();
        assert_eq!(Chunk::at(&file, whole.end).unwrap().name, b"IEND");
        let mut parts = file[..start].to_vec();
        parts.extend(chunk(PIXELS, b"").repeat(empty));
        parts.extend(whole.content.chunks(1).flat_map(|byte| chunk(PIXELS, byte)));
        parts.extend_from_slice(&file[whole.end..]);
        (image, parts)
    }

    #[test]
    fn many_short_chunks_are_joined_and_say_the_same() {
        let (image, parts) = image_in_parts(MANY);
        let joined = joined(&parts).unwrap();
        let pixels = joined.windows(4).filter(|name| *name == PIXELS).count();
        assert_eq!(pixels, 1);
        assert!(joined.len() < parts.len() - 12 * MANY);
        let decoded = image::load_from_memory_with_format(&joined, ImageFormat::Png).unwrap();
        assert_eq!(decoded.into_rgb8(), image);
        assert_eq!(crate::decode::memory(&parts).unwrap(), image);
    }

    #[test]
    fn others_are_left_as_they_are() {
        let few = [
            &[0; SIGNATURE][..],
            &chunk(b"IHDR", b"x"),
            &chunk(PIXELS, b"").repeat(MANY - 1),
        ]
        .concat();
        let long = [&[0; SIGNATURE][..], &chunk(PIXELS, &[0; SHORT + 1]).repeat(MANY)].concat();
        for file in [&few, &long, &few[..7].to_vec(), &Vec::new()] {
            assert!(matches!(joined(file), Ok(Cow::Borrowed(same)) if same == file));
        }
    }

    #[test]
    fn many_short_chunks_must_be_whole() {
        let (_, parts) = image_in_parts(MANY);
        let end = parts.windows(4).position(|name| name == b"IEND").unwrap() - 4;
        for cut in [end, end - 1] {
            let message = joined(&parts[..cut]).unwrap_err();
            assert!(message.contains("cut off"), "{message}");
        }
        let mut damaged = parts.clone();
        damaged[end - 1] ^= 1;
        let message = crate::decode::memory(&damaged).unwrap_err();
        assert!(message.contains("checksum"), "{message}");
    }
}
