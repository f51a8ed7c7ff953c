//! How much text the values of a page make, counted before they are decoded: a short page can repeat a long value of its
//! dictionary, or the beginning of the value before, any number of times.

use parquet::basic::{Encoding, Type};
use parquet::schema::types::ColumnDescriptor;

const DAMAGED: &str = "its encoding is damaged";

/// Where a data page has its levels, which come before the values.
#[derive(Debug, Clone, Copy)]
pub(super) enum Levels {
    /// Each after its length, or packed in bits: the encodings of repetition and definition.
    First([Encoding; 2]),
    /// Of that many bytes.
    Bytes(u64),
}

/// Lengths of the texts in a dictionary page; empty if its values are no texts.
///
/// # Errors
/// A page with fewer values than it announces.
pub(super) fn dictionary(column: &ColumnDescriptor, bytes: &[u8], values: u32) -> Result<Vec<u32>, String> {
    if column.physical_type() != Type::BYTE_ARRAY {
        return match values as usize > bytes.len() {
            true => Err(format!(
                "its dictionary announces {values} values in {} bytes",
                bytes.len()
            )),
            false => Ok(Vec::new()),
        };
    }
    let (mut lengths, mut rest) = (Vec::new(), bytes);
    for _ in 0..values {
        let (length, after) = rest.split_first_chunk().ok_or(DAMAGED)?;
        let length = u32::from_le_bytes(*length);
        rest = after.get(length as usize..).ok_or(DAMAGED)?;
        lengths.push(length);
    }
    Ok(lengths)
}

/// Bytes of text that the `values` values in a data page of `column` make, at most.
///
/// # Errors
/// Damaged values.
pub(super) fn text(
    column: &ColumnDescriptor,
    page: &[u8],
    values: u32,
    encoding: Encoding,
    levels: Levels,
    dictionary: &[u32],
) -> Result<u64, String> {
    match column.physical_type() {
        Type::BYTE_ARRAY => {}
        Type::FIXED_LEN_BYTE_ARRAY => {
            let each = u64::try_from(column.type_length()).unwrap_or(0);
            return Ok(each.saturating_mul(values.into()));
        }
        _ => return Ok(0),
    }
    let all = page.len() as u64;
    match encoding {
        Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY => {
            looked_up(after_levels(column, page, values, levels)?, values, dictionary)
        }
        Encoding::DELTA_LENGTH_BYTE_ARRAY => {
            lengths(after_levels(column, page, values, levels)?, values)?;
            Ok(all)
        }
        Encoding::DELTA_BYTE_ARRAY => {
            let (prefixes, rest) = lengths(after_levels(column, page, values, levels)?, values)?;
            lengths(rest, values)?;
            let prefixes = prefixes.iter().map(|length| u64::try_from(*length).unwrap_or(0));
            Ok(prefixes.fold(all, u64::saturating_add))
        }
        _ => Ok(all),
    }
}

/// The values of a page, without the levels before them.
fn after_levels<'a>(
    column: &ColumnDescriptor,
    page: &'a [u8],
    values: u32,
    levels: Levels,
) -> Result<&'a [u8], String> {
    let encodings = match levels {
        Levels::Bytes(bytes) => return page.get(bytes as usize..).ok_or_else(|| DAMAGED.into()),
        Levels::First(encodings) => encodings,
    };
    let mut rest = page;
    for (greatest, encoding) in [column.max_rep_level(), column.max_def_level()]
        .into_iter()
        .zip(encodings)
    {
        if greatest <= 0 {
            continue;
        }
        rest = match encoding {
            Encoding::RLE => {
                let (length, after) = rest.split_first_chunk().ok_or(DAMAGED)?;
                after.get(u32::from_le_bytes(*length) as usize..)
            }
            _ => {
                let bits = u64::from(u16::BITS - greatest.unsigned_abs().leading_zeros());
                rest.get((u64::from(values) * bits).div_ceil(8) as usize..)
            }
        }
        .ok_or(DAMAGED)?;
    }
    Ok(rest)
}

/// Text of the values that numbers in runs refer to, after the number of bits of each.
fn looked_up(bytes: &[u8], values: u32, dictionary: &[u32]) -> Result<u64, String> {
    // A page of nulls.
    let Some((&width, mut rest)) = bytes.split_first() else {
        return Ok(0);
    };
    if width > 32 {
        return Err(DAMAGED.into());
    }
    // What refers to nothing is refused later, unless it is padding.
    let length = |number: u64| {
        let found = usize::try_from(number).ok().and_then(|number| dictionary.get(number));
        found.map_or(0, |length| u64::from(*length))
    };
    let (mut text, mut left) = (0_u64, u64::from(values));
    while left > 0 && !rest.is_empty() {
        let (head, after) = varint(rest)?;
        let (count, after) = match head & 1 {
            0 => {
                let (number, after) = after.split_at_checked(width.div_ceil(8).into()).ok_or(DAMAGED)?;
                let number = number
                    .iter()
                    .rev()
                    .fold(0, |number, byte| (number << 8) | u64::from(*byte));
                let count = left.min(head >> 1);
                text = text.saturating_add(length(number).saturating_mul(count));
                (count, after)
            }
            _ => {
                let groups = head >> 1;
                let bytes = groups.saturating_mul(width.into()).min(after.len() as u64);
                let (numbers, after) = after.split_at(bytes as usize);
                let count = left.min(groups.saturating_mul(8));
                text = match width {
                    0 => text.saturating_add(length(0).saturating_mul(count)),
                    _ => unpacked(numbers, width)
                        .take(count as usize)
                        .map(length)
                        .fold(text, u64::saturating_add),
                };
                (count, after)
            }
        };
        left -= count;
        rest = after;
    }
    Ok(text)
}

/// The lengths at the start of `bytes`, stored as differences, and what follows them.
fn lengths(bytes: &[u8], values: u32) -> Result<(Vec<i64>, &[u8]), String> {
    let (block, rest) = varint(bytes)?;
    let (parts, rest) = varint(rest)?;
    let (count, rest) = varint(rest)?;
    let (first, mut rest) = difference(rest)?;
    if count > values.into() {
        return Err(format!("a page of {values} values announces {count} lengths"));
    }
    if parts == 0 || block == 0 || !block.is_multiple_of(parts) {
        return Err(DAMAGED.into());
    }
    let each = block / parts;
    let mut found = if count == 0 { Vec::new() } else { vec![first] };
    while (found.len() as u64) < count {
        let (least, after) = difference(rest)?;
        let parts = usize::try_from(parts).unwrap_or(usize::MAX);
        let (widths, after) = after.split_at_checked(parts).ok_or(DAMAGED)?;
        rest = after;
        for width in widths {
            let wanted = each.min(count - found.len() as u64) as usize;
            if wanted == 0 {
                break;
            }
            if *width > 32 {
                return Err(DAMAGED.into());
            }
            let stored = (each.saturating_mul((*width).into()) / 8).min(rest.len() as u64);
            let (numbers, after) = rest.split_at(stored as usize);
            rest = after;
            let mut last = found.last().copied().unwrap_or(first);
            let mut add = |more: u64| {
                last = last.wrapping_add(least).wrapping_add(more as i64);
                found.push(last);
            };
            match *width {
                0 => (0..wanted).for_each(|_| add(0)),
                width if numbers.len() * 8 / usize::from(width) < wanted => return Err(DAMAGED.into()),
                width => unpacked(numbers, width).take(wanted).for_each(add),
            }
        }
    }
    Ok((found, rest))
}

/// Numbers of `width` bits each, one to 32, the lowest bits first.
fn unpacked(bytes: &[u8], width: u8) -> impl Iterator<Item = u64> {
    let width = usize::from(width);
    (0..bytes.len() * 8 / width).map(move |index| {
        let at = index * width;
        let five = bytes[at / 8..].iter().take(5).enumerate();
        let word = five.fold(0, |word, (place, byte)| word | (u64::from(*byte) << (8 * place)));
        (word >> (at % 8)) & ((1 << width) - 1)
    })
}

fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), String> {
    let mut number = 0;
    for (byte, place) in bytes.iter().zip(0..10) {
        number |= u64::from(byte & 0x7F) << (7 * place);
        if *byte < 0x80 {
            return Ok((number, &bytes[place + 1..]));
        }
    }
    Err(DAMAGED.into())
}

fn difference(bytes: &[u8]) -> Result<(i64, &[u8]), String> {
    let (number, rest) = varint(bytes)?;
    Ok(((number >> 1) as i64 ^ -((number & 1) as i64), rest))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::schema::types::{ColumnPath, Type as SchemaType};

    use super::*;

    fn column(definition: i16, repetition: i16) -> ColumnDescriptor {
        let text = SchemaType::primitive_type_builder("text", Type::BYTE_ARRAY)
            .build()
            .unwrap();
        ColumnDescriptor::new(Arc::new(text), definition, repetition, ColumnPath::from("text"))
    }

    const NO_LEVELS: Levels = Levels::Bytes(0);

    #[test]
    fn numbers_of_a_dictionary_are_looked_up() {
        let page = [&3_u32.to_le_bytes()[..], b"abc", &[0; 4], &1_u32.to_le_bytes(), b"x"].concat();
        let flat = column(0, 0);
        let dictionary = dictionary(&flat, &page, 3).unwrap();
        assert_eq!(dictionary, [3, 0, 1]);
        assert!(super::dictionary(&flat, &page, 4).is_err() && super::dictionary(&flat, &page[..9], 2).is_err());
        let text = |bytes: &[u8], values| text(&flat, bytes, values, Encoding::RLE_DICTIONARY, NO_LEVELS, &dictionary);
        // Of two bits each: a million times the first, then 0, 1, 2, 0, 1, 2, 0, 1 and padding.
        let run = [0x80, 0x89, 0x7A, 0];
        let eight = [3, 0b0010_0100, 0b0100_1001];
        let both = [&[2][..], &run, &eight].concat();
        assert_eq!(text(&both, 1_000_008).unwrap(), 3_000_000 + 3 * 3 + 2);
        assert_eq!(text(&both, 1_000_001).unwrap(), 3_000_003);
        assert_eq!(text(&both, 10).unwrap(), 30);
        assert_eq!(text(&[], 10).unwrap(), 0);
        assert_eq!(text(&[0, 3], 5).unwrap(), 15);
        assert!(text(&[33, 3], 5).is_err() && text(&[2, 0x80], 5).is_err());
    }

    #[test]
    fn levels_are_passed_over() {
        let of =
            |column: &ColumnDescriptor, page: &[u8], levels| after_levels(column, page, 9, levels).map(<[u8]>::to_vec);
        let rle = Levels::First([Encoding::RLE; 2]);
        let page = [&[1, 0, 0, 0, 9][..], &[2, 0, 0, 0, 8, 8], b"end"].concat();
        assert_eq!(of(&column(2, 1), &page, rle).unwrap(), b"end");
        assert_eq!(of(&column(0, 0), b"end", rle).unwrap(), b"end");
        // Nine levels of up to 2 take 18 bits.
        let bits = Levels::First([Encoding::RLE, Encoding::PLAIN]);
        assert_eq!(of(&column(2, 0), b"123end", bits).unwrap(), b"end");
        assert_eq!(of(&column(2, 1), b"1234end", Levels::Bytes(4)).unwrap(), b"end");
        assert!(of(&column(1, 0), &[9, 0, 0, 0, 1], rle).is_err() && of(&column(1, 0), b"", Levels::Bytes(1)).is_err());
    }

    /// Lengths whose differences are all 1, in blocks of 128 with four parts: 32 values of one bit each.
    fn counting(first: u8, count: u8) -> Vec<u8> {
        // The least difference is 0.
        let mut bytes = vec![0x80, 1, 4, count, first * 2, 0];
        let parts = (count - 1).div_ceil(32);
        bytes.extend((0..4).map(|part| u8::from(part < parts)));
        bytes.extend(vec![0xFF; 4 * usize::from(parts)]);
        bytes
    }

    #[test]
    fn differences_are_added_up() {
        let bytes = [counting(2, 50), b"rest".to_vec()].concat();
        let (found, rest) = lengths(&bytes, 50).unwrap();
        assert_eq!((found, rest), ((2..52).collect(), &b"rest"[..]));
        assert!(
            lengths(&bytes, 49)
                .unwrap_err()
                .contains("of 49 values announces 50 lengths")
        );
        assert!(lengths(&bytes[..10], 50).is_err() && lengths(&[0, 4, 1, 0], 1).is_err());
        // No values at all, as in a page of nulls.
        assert!(lengths(&[0x80, 1, 4, 0, 0], 5).unwrap().0.is_empty());
        // Prefixes from 0 to 9, and a suffix of one byte each.
        let suffixes = [&[0x80, 1, 4, 10, 2, 0, 0, 0, 0, 0][..], b"abcdefghij"].concat();
        let page = [counting(0, 10), suffixes].concat();
        let made = text(&column(0, 0), &page, 10, Encoding::DELTA_BYTE_ARRAY, NO_LEVELS, &[]);
        assert_eq!(made.unwrap(), page.len() as u64 + 45);
    }
}
