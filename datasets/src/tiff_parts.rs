//! How many bytes the strips or tiles of a TIFF have together. Many of them may lie in the same place of the file, so that
//! a small file would keep a decoder busy for minutes.

/// Bytes that the parts of any file may have: some seconds of work.
const ALWAYS: u64 = 1 << 26;

/// More may be this many times the file and its pixels: what is compressed, with a JPEG's tables in each part, is hardly
/// larger than its pixels, and parts that are alike may share a place.
const RATIO: u64 = 4;

/// Checks the lengths of the parts of a file of `file` bytes whose pixels take `pixels` bytes.
///
/// # Errors
/// Parts that have far more bytes together.
pub(crate) fn check(lengths: &[u64], file: u64, pixels: u64) -> Result<(), String> {
    // A length beyond the end of the file is read up to it.
    let all = lengths
        .iter()
        .fold(0, |all: u64, length| all.saturating_add((*length).min(file)));
    match all <= ALWAYS.max(RATIO.saturating_mul(file.saturating_add(pixels))) {
        true => Ok(()),
        false => Err(format!(
            "the TIFF is damaged: its {} strips or tiles claim {all} bytes together, and the whole file has {file}",
            lengths.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    /// A file of `count` rows of one pixel, each a strip in the same place with `padding` after it.
    fn strips(count: u32, padding: usize) -> Vec<u8> {
        const SHORT: u16 = 3;
        const LONG: u16 = 4;
        const AT: u32 = 8 + 2 + 9 * 12 + 4;
        let (places, lengths) = (AT, AT + 4 * count);
        let entries = [
            (256, 1, 1),
            (257, 1, count),
            (258, 1, 8),
            (259, 1, 8),
            (262, 1, 1),
            (273, count, places),
            (277, 1, 1),
            (278, 1, 1),
            (279, count, lengths),
        ];
        let mut file = b"II*\0\x08\0\0\0".to_vec();
        file.extend((entries.len() as u16).to_le_bytes());
        for (tag, values, value) in entries {
            file.extend(u16::to_le_bytes(tag));
            file.extend(if values == 1 { SHORT } else { LONG }.to_le_bytes());
            file.extend([values, value].map(u32::to_le_bytes).concat());
        }
        file.extend([0; 4]);
        assert_eq!(file.len(), AT as usize);
        file.extend((AT + 8 * count).to_le_bytes().repeat(count as usize));
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&[200]).unwrap();
        let mut strip = packed.finish().unwrap();
        strip.resize(strip.len() + padding, 0);
        file.extend((strip.len() as u32).to_le_bytes().repeat(count as usize));
        file.extend(strip);
        file
    }

    #[test]
    fn strips_that_claim_the_same_bytes_again_and_again_are_refused() {
        let image = crate::decode::memory(&strips(1000, 0)).unwrap();
        assert_eq!(image.dimensions(), (1, 1000));
        assert!(image.into_raw().iter().all(|value| *value == 200));
        let message = crate::decode::memory(&strips(1000, 100_000)).unwrap_err();
        assert!(message.contains("1000 strips or tiles claim 1000"), "{message}");
    }

    #[test]
    fn parts_may_share_a_place_but_not_without_end() {
        assert_eq!(check(&[1000; 10], 10_000, 10_000), Ok(()));
        // Blank tiles of 256 pixels that are stored once.
        assert_eq!(check(&[600; 250_000], 10_000_000, 256 * 250_000), Ok(()));
        // A single part of any length.
        assert_eq!(check(&[u64::MAX], 100 << 20, 1), Ok(()));
        let message = check(&[100_000; 100_000], 1_000_000, 100_000).unwrap_err();
        assert!(
            message.contains("100000 strips or tiles claim 10000000000 bytes"),
            "{message}"
        );
        assert!(check(&[u64::MAX; 10], 100 << 20, u64::MAX).is_ok());
        assert!(check(&[u64::MAX; 10], 100 << 20, 1).is_err());
    }
}
