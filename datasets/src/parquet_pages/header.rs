//! Headers of pages, in Thrift's compact protocol. The crate keeps its own reader of them to itself.

use std::io::Read;

use parquet::basic::Encoding;

use super::thrift::{Compact, DEEPEST, FIELDS, INT32, STRUCTURE};

/// What a page is and how it is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Header {
    /// Size of the header itself, bytes.
    pub length: u64,
    /// Size of the page after it.
    pub packed: u64,
    /// Size that it announces unpacked.
    pub size: usize,
    /// Its kind.
    pub kind: Kind,
}

/// Kinds of pages.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// Values that the data pages refer to by number.
    Dictionary {
        values: u32,
        encoding: Encoding,
        is_sorted: bool,
    },
    /// Levels and values, packed together.
    Data {
        values: u32,
        encoding: Encoding,
        definition: Encoding,
        repetition: Encoding,
    },
    /// Levels, which are never packed, and values.
    DataV2 {
        values: u32,
        nulls: u32,
        rows: u32,
        encoding: Encoding,
        definition_bytes: u32,
        repetition_bytes: u32,
        is_packed: bool,
    },
    /// Anything else, to be skipped.
    Other,
}

const DAMAGED: &str = "the header of a page is damaged; fetch the file again";

/// The header at the start of `source`.
///
/// # Errors
/// Anything that is none.
pub(super) fn read(source: impl Read) -> Result<Header, String> {
    let mut compact = Compact::new(source);
    let (mut whole, mut parts) = ([None; FIELDS], [None; FIELDS]);
    let mut last = 0;
    while let Some((id, kind)) = compact.field(&mut last)? {
        match (id, kind) {
            (1..=4, INT32) => whole[id as usize] = Some(compact.integer()?),
            (5 | 7 | 8, STRUCTURE) => parts = compact.integers()?,
            _ => compact.skip(kind, DEEPEST)?,
        }
    }
    let of_page = |at: usize| whole[at].and_then(|value| u32::try_from(value).ok()).ok_or(DAMAGED);
    let number = |at: usize| parts[at].and_then(|value| u32::try_from(value).ok()).ok_or(DAMAGED);
    let encoding = |at: usize| parts[at].and_then(encoding).ok_or(DAMAGED);
    let kind = match of_page(1)? {
        0 => Kind::Data {
            values: number(1)?,
            encoding: encoding(2)?,
            definition: encoding(3)?,
            repetition: encoding(4)?,
        },
        2 => Kind::Dictionary {
            values: number(1)?,
            encoding: encoding(2)?,
            is_sorted: parts[3] == Some(1),
        },
        3 => Kind::DataV2 {
            values: number(1)?,
            nulls: number(2)?,
            rows: number(3)?,
            encoding: encoding(4)?,
            definition_bytes: number(5)?,
            repetition_bytes: number(6)?,
            // Packed unless it says otherwise.
            is_packed: parts[7] != Some(0),
        },
        _ => Kind::Other,
    };
    Ok(Header {
        length: compact.taken(),
        packed: of_page(3)?.into(),
        size: of_page(2)? as usize,
        kind,
    })
}

#[expect(deprecated, reason = "old files have levels packed in bits")]
fn encoding(number: i64) -> Option<Encoding> {
    Some(match number {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        3 => Encoding::RLE,
        4 => Encoding::BIT_PACKED,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        7 => Encoding::DELTA_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        10 => Encoding::ALP,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::thrift::{FALSE, TRUE};
    use super::*;

    /// A field that follows the one before: its number is one more.
    fn int(value: u32) -> Vec<u8> {
        let mut number = u64::from(value) << 1;
        let mut bytes = vec![0x10 | INT32];
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    }

    #[test]
    fn headers_of_all_kinds() {
        // Kind, sizes, a checksum, then the structure of a data page with statistics (field 5) in it.
        let statistics = [0x1C, 0x18, 3, b'a', b'b', b'c', 0];
        let data = [
            int(0),
            int(1000),
            int(300),
            int(7),
            vec![0x1C],
            int(40),
            int(8),
            int(3),
            int(3),
            statistics.into(),
            vec![0, 0],
        ]
        .concat();
        let header = read(&[&data[..], b"the page"].concat()[..]).unwrap();
        assert_eq!(
            header,
            Header {
                length: data.len() as u64,
                packed: 300,
                size: 1000,
                kind: Kind::Data {
                    values: 40,
                    encoding: Encoding::RLE_DICTIONARY,
                    definition: Encoding::RLE,
                    repetition: Encoding::RLE,
                },
            }
        );
        let dictionary = [
            int(2),
            int(9),
            int(9),
            vec![0x4C],
            int(3),
            int(0),
            vec![0x10 | TRUE, 0, 0],
        ]
        .concat();
        let kind = read(&dictionary[..]).unwrap().kind;
        assert!(matches!(
            kind,
            Kind::Dictionary {
                values: 3,
                encoding: Encoding::PLAIN,
                is_sorted: true
            }
        ));
        let sizes = [
            int(3),
            int(9),
            int(9),
            vec![0x5C],
            int(5),
            int(1),
            int(5),
            int(0),
            int(2),
            int(0),
        ]
        .concat();
        for (end, packed) in [
            (vec![0, 0], true),
            (vec![0x10 | TRUE, 0, 0], true),
            (vec![0x10 | FALSE, 0, 0], false),
        ] {
            let kind = read(&[&sizes[..], &end].concat()[..]).unwrap().kind;
            let Kind::DataV2 {
                nulls: 1,
                definition_bytes: 2,
                is_packed,
                ..
            } = kind
            else {
                panic!("{kind:?}")
            };
            assert_eq!(is_packed, packed);
        }
        let index = [int(1), int(0), int(5), vec![0]].concat();
        assert_eq!(read(&index[..]).unwrap().kind, Kind::Other);
        for cut in 0..data.len() {
            assert!(read(&data[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn what_is_damaged_ends_without_being_believed() {
        let negative = [vec![0x15, 2, 0x15, 1], int(3), vec![0]].concat();
        let text: Vec<u8> = [&[0x18][..], &[0xFF; 9], &[1]].concat();
        let list = [0x19, 0xFC, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F];
        let deep = [0x1C; 100];
        for bytes in [&negative[..], &text, &list, &deep, &[0x1D], &[]] {
            assert!(read(bytes).unwrap_err().contains("damaged"), "{bytes:?}");
        }
    }
}
