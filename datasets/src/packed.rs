//! How far compressed data may grow, and files of text compressed with gzip.

use std::io::Read;

use flate2::read::MultiGzDecoder;

/// Bytes that any file may take unpacked.
const ALWAYS: u64 = 256 << 20;

/// A larger one may take this many times its size: text compresses to a twentieth at best.
const RATIO: u64 = 50;

/// Bytes that a file of `length` bytes may take unpacked.
pub(crate) fn most(length: u64) -> u64 {
    ALWAYS.max(RATIO.saturating_mul(length))
}

/// The contents of the file `bytes`.
///
/// # Errors
/// A damaged file, or one that grows more than text does.
pub(crate) fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, String> {
    within(bytes, most(bytes.len() as u64))
}

fn within(bytes: &[u8], most: u64) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let read = MultiGzDecoder::new(bytes).take(most + 1).read_to_end(&mut text);
    match read.map_err(|error| error.to_string())? as u64 > most {
        false => Ok(text),
        true => Err(format!(
            "its {} bytes take more than {most} unpacked, which text does not; unpack it with gunzip and look what it is",
            bytes.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn a_file_that_grows_too_much_is_refused() {
        let packed = |text: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        let blanks = packed(&[b' '; 100_000]);
        assert_eq!(within(&blanks, 100_000).unwrap().len(), 100_000);
        let error = within(&blanks, 99_999).unwrap_err();
        assert!(error.contains("more than 99999") && error.contains("gunzip"), "{error}");
        // Several members count together.
        let twice = [packed(b"ab"), packed(b"cd")].concat();
        assert_eq!(within(&twice, 4).unwrap(), b"abcd");
        assert!(within(&twice, 3).is_err() && unpacked(&twice[..10]).is_err());
    }
}
