//! Unpacks a page into the bytes that its header announces, never into more.

use std::io::Read;

use brotli_decompressor::Decompressor;
use flate2::read::MultiGzDecoder;
use parquet::basic::Compression;
use ruzstd::decoding::StreamingDecoder;

/// True if pages with this compression can be read.
pub(crate) fn is_built_in(codec: Compression) -> bool {
    codec != Compression::LZO
}

/// The `size` bytes that `packed` holds.
///
/// # Errors
/// Damaged data, or data that holds more or fewer bytes.
pub(super) fn unpacked(codec: Compression, packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let bytes = match codec {
        Compression::UNCOMPRESSED => packed.to_vec(),
        Compression::SNAPPY => {
            // It has its own length in front.
            let length = snap::raw::decompress_len(packed).map_err(|e| e.to_string())?;
            if length != size {
                return Err(format!("it announces {size} bytes unpacked and holds {length}"));
            }
            check_growth(packed, size, 32)?;
            let unpacked = snap::raw::Decoder::new().decompress_vec(packed);
            unpacked.map_err(|e| e.to_string())?
        }
        Compression::GZIP(_) => streamed(MultiGzDecoder::new(packed), packed, size)?,
        Compression::BROTLI(_) => {
            // Not in RFC 7932: it would ask for a window of a gigabyte.
            if packed.first().is_some_and(|first| first & 0x7F == 0x11) {
                return Err("it is Brotli with a large window, which parquet does not have".into());
            }
            streamed(Decompressor::new(packed, 4096), packed, size)?
        }
        Compression::ZSTD(_) => zstd(packed, size)?,
        Compression::LZ4_RAW => lz4(packed, size)?,
        // Older writers put Hadoop's frames around the blocks, others did not.
        Compression::LZ4 => match lz4_frames(packed, size) {
            Some(bytes) => bytes,
            None => lz4(packed, size)?,
        },
        Compression::LZO => return Err("LZO is not built in".into()),
    };
    match bytes.len() == size {
        true => Ok(bytes),
        false if bytes.len() > size => Err(more(size)),
        false => Err(format!("it announces {size} bytes unpacked and holds {}", bytes.len())),
    }
}

/// The window that Zstandard's own decoder always allows.
const LEAST_WINDOW: usize = 8 << 20;

fn more(size: usize) -> String {
    format!("it announces {size} bytes unpacked and holds more")
}

/// What a byte of LZ4 stands for at most.
const LZ4_GROWTH: usize = 255;

/// Refuses a size that the format cannot reach, before it is allocated.
fn check_growth(packed: &[u8], size: usize, most: usize) -> Result<(), String> {
    match size > packed.len().saturating_mul(most) {
        false => Ok(()),
        true => Err(format!(
            "it announces {size} bytes unpacked, which its {} cannot hold",
            packed.len()
        )),
    }
}

/// What `source` has, up to a byte more than `size`.
fn streamed(source: impl Read, packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    // As much as pages mostly grow; what is announced may be wrong.
    let mut bytes = Vec::with_capacity(size.min(packed.len().saturating_mul(8)));
    let read = source.take(size as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// The frames of `packed`, up to a byte more than `size`.
fn zstd(packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    // A frame of one segment has a window of its own size.
    let window = size.max(LEAST_WINDOW) as u64;
    let mut bytes = Vec::new();
    let mut rest = packed;
    while !rest.is_empty() && bytes.len() <= size {
        let frame = StreamingDecoder::new_with_max_window_size(&mut rest, window).map_err(|e| e.to_string())?;
        bytes.append(&mut streamed(frame, packed, size - bytes.len())?);
    }
    Ok(bytes)
}

fn lz4(packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    check_growth(packed, size, LZ4_GROWTH)?;
    let mut bytes = vec![0; size];
    let length = lz4_flex::block::decompress_into(packed, &mut bytes).map_err(|e| e.to_string())?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Blocks, each after its sizes, unpacked and packed, of four bytes; `None` if `packed` is not made of them.
fn lz4_frames(packed: &[u8], size: usize) -> Option<Vec<u8>> {
    check_growth(packed, size, LZ4_GROWTH).ok()?;
    let mut bytes = vec![0; size];
    let (mut rest, mut at) = (packed, 0_usize);
    while !rest.is_empty() {
        let (unpacked, after) = rest.split_first_chunk::<4>()?;
        let (packed, after) = after.split_first_chunk::<4>()?;
        let (block, after) = after.split_at_checked(u32::from_be_bytes(*packed) as usize)?;
        let end = at.checked_add(u32::from_be_bytes(*unpacked) as usize)?;
        let length = lz4_flex::block::decompress_into(block, bytes.get_mut(at..end)?).ok()?;
        if length != end - at {
            return None;
        }
        (rest, at) = (after, end);
    }
    (at == size).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TEXT: &[u8] = b"a page, a page, a page, a page";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A Zstandard frame with a window of a megabyte and one block, a run of `length` letters.
    fn zstd_run(length: u32) -> Vec<u8> {
        let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x50];
        // The last block (1), a run (1 << 1), of that length.
        let block = 1 | (1 << 1) | (length << 3);
        frame.extend_from_slice(&block.to_le_bytes()[..3]);
        frame.push(b'z');
        frame
    }

    fn frames(blocks: &[&[u8]]) -> Vec<u8> {
        let frame = |block: &&[u8]| {
            let packed = lz4_flex::block::compress(block);
            let sizes = [block.len() as u32, packed.len() as u32].map(u32::to_be_bytes);
            [&sizes.concat()[..], &packed].concat()
        };
        blocks.iter().flat_map(frame).collect()
    }

    #[test]
    fn every_codec_gives_what_is_announced_and_no_more() {
        let runs = [b'z'; 1000];
        let snappy = snap::raw::Encoder::new().compress_vec(TEXT).unwrap();
        // An uncompressed block of Brotli: a window of 64 KiB, its length less one, then the empty last block.
        let head = ((TEXT.len() as u32 - 1) << 4) | (1 << 20);
        let brotli = [&head.to_le_bytes()[..3], TEXT, &[3]].concat();
        let cases: [(Compression, Vec<u8>, &[u8]); 7] = [
            (Compression::SNAPPY, snappy, TEXT),
            (Compression::GZIP(Default::default()), gzip(TEXT), TEXT),
            (Compression::BROTLI(Default::default()), brotli, TEXT),
            (Compression::ZSTD(Default::default()), zstd_run(1000), &runs),
            (Compression::LZ4_RAW, lz4_flex::block::compress(TEXT), TEXT),
            (Compression::LZ4, frames(&[&TEXT[..9], &TEXT[9..]]), TEXT),
            (Compression::LZ4, lz4_flex::block::compress(TEXT), TEXT),
        ];
        for (codec, packed, text) in cases {
            assert_eq!(unpacked(codec, &packed, text.len()).unwrap(), text, "{codec}");
            for size in [text.len() - 1, text.len() + 1, 0] {
                assert!(unpacked(codec, &packed, size).is_err(), "{codec}, {size}");
            }
            assert!(
                unpacked(codec, &packed[..packed.len() - 2], text.len()).is_err(),
                "{codec}"
            );
        }
    }

    #[test]
    fn what_holds_more_than_it_announces_is_not_unpacked_to_its_end() {
        let bomb = gzip(&vec![0; 50 << 20]);
        let error = unpacked(Compression::GZIP(Default::default()), &bomb, 1000).unwrap_err();
        assert_eq!(error, "it announces 1000 bytes unpacked and holds more");
        let error = unpacked(Compression::BROTLI(Default::default()), &[0x11, 30, 0, 0], 1000).unwrap_err();
        assert!(error.contains("large window"), "{error}");
        assert!(!is_built_in(Compression::LZO) && unpacked(Compression::LZO, b"", 0).is_err());
    }
}
