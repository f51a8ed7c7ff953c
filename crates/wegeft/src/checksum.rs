//! A checksum inside safetensors files, so that even one flipped bit is noticed: the CRC-32C of the whole file, computed with
//! zeros in its own place and stored in the metadata, which other readers ignore.

use serde_json::Value;

/// What the metadata of a file begin with.
const START: &str = "\"__metadata__\":{";
const KEY: &str = "\"crc32c\":\"";
const ZEROS: &str = "00000000";

/// Metadata of a file: names and texts, in the order that [`seal`] gives them.
pub(crate) type Metadata = Vec<(&'static str, String)>;

/// The metadata that [`seal`] expects.
pub(crate) fn metadata() -> Metadata {
    vec![("format", "pt".into()), ("crc32c", ZEROS.into())]
}

/// Writes the checksum into `file`, which must have this `metadata`, with [`metadata`] among them. Also sorts the metadata,
/// so that equal tensors give equal files.
pub(crate) fn seal(mut file: Vec<u8>, metadata: &Metadata) -> Vec<u8> {
    let entries = metadata
        .iter()
        .map(|(name, text)| format!("{}:{}", Value::from(*name), Value::from(text.as_str())));
    let sorted = entries.collect::<Vec<_>>().join(",");
    let header = header(&file);
    if let Some(at) = find(&file[..header], START.as_bytes()).map(|at| at + START.len())
        && let Some(place) = file[..header].get_mut(at..at + sorted.len())
    {
        // The same entries take as many bytes in any order.
        place.copy_from_slice(sorted.as_bytes());
    }
    if let Some(at) = place(&file) {
        let sum = format!("{:08x}", sum(&file, at));
        file[at..at + ZEROS.len()].copy_from_slice(sum.as_bytes());
    }
    file
}

/// False if the checksum in `file` does not match; a file without one passes.
pub(crate) fn holds(file: &[u8]) -> bool {
    let Some(at) = place(file) else { return true };
    let stored = file.get(at..at + ZEROS.len()).unwrap_or_default();
    stored == format!("{:08x}", sum(file, at)).as_bytes()
}

fn sum(file: &[u8], at: usize) -> u32 {
    let end = (at + ZEROS.len()).min(file.len());
    let before = crc32c::crc32c(&file[..at]);
    crc32c::crc32c_append(crc32c::crc32c_append(before, ZEROS.as_bytes()), &file[end..])
}

/// End of the header, at most that of the file.
pub(crate) fn header(file: &[u8]) -> usize {
    let length = file.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    file.len()
        .min(usize::try_from(length).unwrap_or(usize::MAX).saturating_add(8))
}

fn place(file: &[u8]) -> Option<usize> {
    find(&file[..header(file)], KEY.as_bytes()).map(|at| at + KEY.len())
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::checkpoint::{Stored, Tensors, pack, pack_with, unpack};

    #[test]
    fn a_flipped_bit_is_seen_and_equal_tensors_give_equal_files() {
        let stored = Stored {
            shape: vec![2, 3],
            values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        };
        let tensors = Tensors::from([("a".to_string(), stored.clone()), ("b".to_string(), stored)]);
        let path = Path::new("x");
        // A text in the metadata that looks like the checksum is not taken for it.
        let text = r#"{"crc32c":"00000000","r":2}"#.to_string();
        let more = || vec![("adapter_config", text.clone())];
        let files = [
            (pack(path, &tensors).unwrap(), Vec::new()),
            (pack_with(path, &tensors, more()).unwrap(), more()),
        ];
        for (file, more) in files {
            for _ in 0..20 {
                assert_eq!(pack_with(path, &tensors, more.clone()).unwrap(), file);
            }
            assert_eq!(unpack(path, &file).unwrap(), tensors);
            let key = b"__metadata__\":{\"format\":\"pt\",\"crc32c";
            let start = file.windows(key.len()).position(|window| window == key).unwrap();
            for at in (0..file.len()).filter(|at| !(start..start + key.len()).contains(at)) {
                let mut flipped = file.clone();
                flipped[at] ^= 4;
                assert!(unpack(path, &flipped).is_err(), "byte {at}");
            }
        }
    }
}
