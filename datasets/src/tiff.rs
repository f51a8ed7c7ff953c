//! The entries of a TIFF file, looked at before it is read: the reader takes memory for as many values as an entry claims
//! before it reads one of them.

use std::io::{Read, Seek, SeekFrom};

/// Refuses a file an entry of which claims more values than the file has room for.
///
/// # Errors
/// A damaged file. What cannot be read here is left to the reader.
pub(crate) fn check(source: &mut (impl Read + Seek), length: u64) -> Result<(), String> {
    let mut entries = Entries { source, little: true };
    for (tag, values, bytes) in entries.first_image().unwrap_or_default() {
        if values.checked_mul(bytes).is_none_or(|bytes| bytes > length) {
            return Err(format!(
                "the TIFF is damaged: its tag {tag} claims {values} values, and the whole file has {length} bytes"
            ));
        }
    }
    Ok(())
}

struct Entries<'a, S> {
    source: &'a mut S,
    little: bool,
}

impl<S: Read + Seek> Entries<'_, S> {
    /// Tag, number of values and bytes of one value of each entry of the first image, as far as they can be read.
    fn first_image(&mut self) -> Option<Vec<(u64, u64, u64)>> {
        let mut order = [0; 2];
        self.source.read_exact(&mut order).ok()?;
        self.little = order == *b"II";
        let (place, entries, count) = match self.number(2)? {
            42 => (4, 2, 4),
            // BigTIFF says how long its offsets are: 8 bytes, and two of padding.
            43 => {
                self.number(4)?;
                (8, 8, 8)
            }
            _ => return None,
        };
        let first = self.number(place)?;
        self.source.seek(SeekFrom::Start(first)).ok()?;
        let mut found = Vec::new();
        for _ in 0..self.number(entries)? {
            let entry = (|| {
                Some((
                    self.number(2)?,
                    self.number(2)?,
                    self.number(count)?,
                    self.number(place)?,
                ))
            })();
            let Some((tag, kind, values, _)) = entry else { break };
            found.push((tag, values, bytes_of(kind)));
        }
        Some(found)
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        let mut number = [0; 8];
        self.source.read_exact(&mut number[..bytes]).ok()?;
        Some(match self.little {
            true => u64::from_le_bytes(number),
            false => u64::from_be_bytes(number) >> (64 - 8 * bytes),
        })
    }
}

/// Bytes of a value of the type `kind` of TIFF 6.0 and BigTIFF.
fn bytes_of(kind: u64) -> u64 {
    match kind {
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16..=18 => 8,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A file of one entry: tag 262, of type SHORT, with `values` values.
    fn file(values: u64, big: bool, little: bool) -> Vec<u8> {
        let number = |number: u64, bytes: usize| match little {
            true => number.to_le_bytes()[..bytes].to_vec(),
            false => number.to_be_bytes()[8 - bytes..].to_vec(),
        };
        let order = if little { b"II" } else { b"MM" }.to_vec();
        let parts = match big {
            false => [order, number(42, 2), number(8, 4), number(1, 2)].concat(),
            true => [
                order,
                number(43, 2),
                number(8, 2),
                number(0, 2),
                number(16, 8),
                number(1, 8),
            ]
            .concat(),
        };
        let width = if big { 8 } else { 4 };
        [
            parts,
            number(262, 2),
            number(3, 2),
            number(values, width),
            number(0, width),
        ]
        .concat()
    }

    #[test]
    fn values_must_have_room_in_the_file() {
        for (big, little) in [(false, true), (false, false), (true, true), (true, false)] {
            let check = |values| {
                let file = file(values, big, little);
                let length = file.len() as u64;
                check(&mut Cursor::new(file), length)
            };
            assert_eq!(check(1), Ok(()));
            let message = check(0x51_0001).unwrap_err();
            assert!(message.contains("tag 262 claims 5308417 values"), "{message}");
            assert!(check(u64::MAX).is_err());
        }
    }

    #[test]
    fn what_is_cut_off_is_left_to_the_reader() {
        let whole = file(1, false, true);
        for length in 0..whole.len() {
            assert_eq!(check(&mut Cursor::new(&whole[..length]), length as u64), Ok(()));
        }
    }
}
