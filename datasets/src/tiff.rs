//! The entries of a TIFF file, looked at before it is read: the reader takes memory for as many values as an entry claims
//! before it reads one of them, and refuses colours that it could read as plain samples.

use std::io::{Read, Seek, SeekFrom};

use tiff::TiffError;

/// Most values of an entry that the reader keeps in memory.
const MOST_VALUES: u64 = 1 << 20;
/// The entries that it keeps: bits, places of strips and tiles, colour maps, kinds of samples, tables of JPEG.
const LISTS: [u64; 9] = [258, 273, 279, 320, 324, 325, 338, 339, 347];
/// Most entries of an image.
const MOST_ENTRIES: u64 = 65_535;

/// Refuses a file an entry of which claims more values than the file has room for.
///
/// # Errors
/// A damaged file. What cannot be read here is left to the reader.
pub(crate) fn check(source: &mut (impl Read + Seek), length: u64) -> Result<(), String> {
    let mut entries = Entries { source, little: true };
    for Entry { tag, kind, values, .. } in entries.first_image().unwrap_or_default() {
        if values > MOST_VALUES && LISTS.contains(&tag) {
            return Err(format!(
                "the TIFF is damaged: its tag {tag} claims {values} values; at most {MOST_VALUES} are read"
            ));
        }
        if values.checked_mul(bytes_of(kind)).is_none_or(|bytes| bytes > length) {
            return Err(format!(
                "the TIFF is damaged: its tag {tag} claims {values} values, and the whole file has {length} bytes"
            ));
        }
    }
    Ok(())
}

/// What the reader says, in words of a user.
pub(crate) fn refused(error: TiffError) -> String {
    match error {
        TiffError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => "the TIFF is cut off".into(),
        TiffError::LimitsExceeded => "the TIFF is damaged: its parts are larger than the file allows".into(),
        other => format!("the TIFF is damaged or of an unusual kind: {other}"),
    }
}

/// How the samples of the first image are to be understood, and where the file says so.
pub(crate) struct Colours {
    /// PhotometricInterpretation.
    pub(crate) kind: u16,
    /// Position of its two bytes.
    at: u64,
    little: bool,
}

/// The colours of the first image; `None` if the file does not say.
pub(crate) fn colours(source: &mut (impl Read + Seek)) -> Option<Colours> {
    const SHORT: u64 = 3;
    let mut entries = Entries { source, little: true };
    let found = entries.first_image()?;
    let little = entries.little;
    let entry = found
        .iter()
        .find(|entry| entry.tag == 262 && entry.kind == SHORT && entry.values == 1)?;
    source.seek(SeekFrom::Start(entry.at)).ok()?;
    let mut bytes = [0; 2];
    source.read_exact(&mut bytes).ok()?;
    let kind = if little {
        u16::from_le_bytes(bytes)
    } else {
        u16::from_be_bytes(bytes)
    };
    Some(Colours {
        kind,
        at: entry.at,
        little,
    })
}

/// The XMP of the first image; `None` if there is none, or if it is longer than any program writes it.
pub(crate) fn xmp(source: &mut (impl Read + Seek)) -> Option<Vec<u8>> {
    const XMP: u64 = 700;
    const LONGEST: u64 = 1 << 20;
    let mut entries = Entries { source, little: true };
    // Fewer bytes than these are in the entry itself, and say nothing.
    let is_usual = |entry: &Entry| bytes_of(entry.kind) == 1 && (9..=LONGEST).contains(&entry.values);
    let entry = entries
        .first_image()?
        .into_iter()
        .find(|entry| entry.tag == XMP && is_usual(entry))?;
    entries.source.seek(SeekFrom::Start(entry.at)).ok()?;
    let start = entries.number(entry.width)?;
    entries.source.seek(SeekFrom::Start(start)).ok()?;
    let mut xmp = Vec::new();
    entries.source.take(entry.values).read_to_end(&mut xmp).ok()?;
    Some(xmp)
}

/// A file that says its samples are grey, whatever they are: so that they are read as they are.
pub(crate) struct AsGrey<S> {
    source: S,
    colours: Colours,
}

impl<S: Read + Seek> AsGrey<S> {
    pub(crate) fn new(source: S, colours: Colours) -> Self {
        Self { source, colours }
    }
}

impl<S: Read + Seek> Read for AsGrey<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        const BLACK_IS_ZERO: u16 = 1;
        let from = self.source.stream_position()?;
        let count = self.source.read(buffer)?;
        let grey = match self.colours.little {
            true => BLACK_IS_ZERO.to_le_bytes(),
            false => BLACK_IS_ZERO.to_be_bytes(),
        };
        for (place, byte) in (self.colours.at..).zip(grey) {
            let read = place.checked_sub(from).and_then(|offset| usize::try_from(offset).ok());
            if let Some(old) = read.and_then(|offset| buffer[..count].get_mut(offset)) {
                *old = byte;
            }
        }
        Ok(count)
    }
}

impl<S: Seek> Seek for AsGrey<S> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.source.seek(to)
    }
}

/// An entry of the directory.
struct Entry {
    tag: u64,
    /// Type of its values.
    kind: u64,
    /// Number of its values.
    values: u64,
    /// Position of the values, or of where they are if they do not fit.
    at: u64,
    /// Bytes that are there.
    width: usize,
}

struct Entries<'a, S> {
    source: &'a mut S,
    little: bool,
}

impl<S: Read + Seek> Entries<'_, S> {
    /// The entries of the first image, as far as they can be read.
    fn first_image(&mut self) -> Option<Vec<Entry>> {
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
        for _ in 0..self.number(entries)?.min(MOST_ENTRIES) {
            let entry = (|| {
                let (tag, kind, values) = (self.number(2)?, self.number(2)?, self.number(count)?);
                let at = self.source.stream_position().ok()?;
                self.number(place)?;
                Some(Entry {
                    tag,
                    kind,
                    values,
                    at,
                    width: place,
                })
            })();
            let Some(entry) = entry else { break };
            found.push(entry);
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
    fn the_colours_are_found_and_read_as_grey() {
        for (big, little) in [(false, true), (false, false), (true, true), (true, false)] {
            let mut bytes = file(1, big, little);
            let width = if big { 8 } else { 4 };
            let at = bytes.len() - width;
            bytes[at..at + 2].copy_from_slice(&if little {
                3_u16.to_le_bytes()
            } else {
                3_u16.to_be_bytes()
            });
            let found = colours(&mut Cursor::new(&bytes)).unwrap();
            assert_eq!((found.kind, found.at), (3, at as u64));
            let mut read = Vec::new();
            // Byte by byte and at once.
            let mut grey = AsGrey::new(Cursor::new(&bytes), colours(&mut Cursor::new(&bytes)).unwrap());
            let mut byte = [0];
            while grey.read(&mut byte).unwrap() > 0 {
                read.push(byte[0]);
            }
            let mut at_once = Vec::new();
            grey.rewind().unwrap();
            grey.read_to_end(&mut at_once).unwrap();
            assert_eq!(read, at_once);
            assert_eq!(colours(&mut Cursor::new(&read)).unwrap().kind, 1);
            let changed = read.iter().zip(&bytes).filter(|(a, b)| a != b).count();
            assert_eq!(changed, 1);
        }
        assert!(colours(&mut Cursor::new(file(2, false, true))).is_none());
    }

    #[test]
    fn xmp_is_found_unless_it_is_too_long() {
        let packet = b"<x tiff:Orientation=\"6\"/>";
        for (big, little) in [(false, true), (false, false), (true, true), (true, false)] {
            let with = |values: u64| {
                let mut bytes = file(values, big, little);
                let number = |number: u64, bytes: usize| match little {
                    true => number.to_le_bytes()[..bytes].to_vec(),
                    false => number.to_be_bytes()[8 - bytes..].to_vec(),
                };
                let width = if big { 8 } else { 4 };
                let (entry, field, end) = (bytes.len() - 2 * width - 4, bytes.len() - width, bytes.len());
                bytes.splice(entry..entry + 4, [number(700, 2), number(1, 2)].concat());
                bytes.splice(field..end, number(end as u64, width));
                bytes.extend(packet);
                xmp(&mut Cursor::new(bytes))
            };
            let length = packet.len() as u64;
            assert_eq!(with(length).as_deref(), Some(&packet[..]));
            assert_eq!(with(1 << 30), None);
        }
        assert_eq!(xmp(&mut Cursor::new(file(20, false, true))), None);
    }

    #[test]
    fn what_is_cut_off_is_left_to_the_reader() {
        let whole = file(1, false, true);
        for length in 0..whole.len() {
            assert_eq!(check(&mut Cursor::new(&whole[..length]), length as u64), Ok(()));
        }
    }
}
