//! Parquet files written byte by byte, to say what no writer says. Field numbers and types are those of parquet.thrift.

use std::path::Path;

fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A field that is an integer; `after` says how many numbers it comes after the one before.
fn int(after: u8, value: i64) -> Vec<u8> {
    [vec![(after << 4) | 6], number(value as u64 * 2)].concat()
}

fn short(after: u8, value: i64) -> Vec<u8> {
    [vec![(after << 4) | 5], number(value as u64 * 2)].concat()
}

fn text(after: u8, text: &str) -> Vec<u8> {
    [vec![(after << 4) | 8, text.len() as u8], text.into()].concat()
}

/// A list of up to 14 items of that type.
fn list(after: u8, kind: u8, items: &[Vec<u8>]) -> Vec<u8> {
    [
        vec![(after << 4) | 9, ((items.len() as u8) << 4) | kind],
        items.concat(),
    ]
    .concat()
}

fn structure(fields: &[Vec<u8>]) -> Vec<u8> {
    [fields.concat(), vec![0]].concat()
}

/// A page and what it announces.
pub struct Page<'a> {
    /// 0 has values, 2 is a dictionary.
    pub kind: u8,
    pub values: i64,
    /// 0 is plain, 8 refers to the dictionary, 6 and 7 have lengths as differences.
    pub encoding: u8,
    /// Size unpacked.
    pub size: i64,
    pub body: &'a [u8],
}

impl Page<'_> {
    fn bytes(&self) -> Vec<u8> {
        let of_kind = match self.kind {
            2 => (
                7 - 3,
                structure(&[short(1, self.values), short(1, self.encoding.into())]),
            ),
            _ => {
                let levels = [short(1, 3), short(1, 3)].concat();
                (
                    5 - 3,
                    structure(&[short(1, self.values), short(1, self.encoding.into()), levels]),
                )
            }
        };
        let header = structure(&[
            short(1, self.kind.into()),
            short(1, self.size),
            short(1, self.body.len() as i64),
            vec![(of_kind.0 << 4) | 12],
            of_kind.1,
        ]);
        [&header[..], self.body].concat()
    }
}

/// Writes a file with one column of texts, `text`. `repetition` is 0 for a text in each row and 2 for any number.
pub fn write(path: &Path, codec: u8, repetition: u8, rows: i64, pages: &[Page]) {
    let start = 4_i64;
    let has_dictionary = pages.first().is_some_and(|page| page.kind == 2);
    let first = pages.first().map_or(0, |page| page.bytes().len()) as i64;
    let pages: Vec<u8> = pages.iter().flat_map(Page::bytes).collect();
    let size = pages.len() as i64;
    let place = match has_dictionary {
        true => [int(2, start + first), int(2, start)].concat(),
        false => int(2, start),
    };
    let column = structure(&[
        short(1, 6),
        list(1, 5, &[number(0)]),
        list(1, 8, &[[vec![4], b"text".to_vec()].concat()]),
        short(1, codec.into()),
        int(1, rows),
        int(1, size),
        int(1, size),
        place,
    ]);
    let chunk = structure(&[int(2, start), vec![(1 << 4) | 12], column]);
    let group = structure(&[list(1, 12, &[chunk]), int(1, size), int(1, rows)]);
    let root = structure(&[text(4, "schema"), short(1, 1)]);
    let leaf = structure(&[short(1, 6), short(2, repetition.into()), text(1, "text"), short(2, 0)]);
    let footer = structure(&[
        short(1, 1),
        list(1, 12, &[root, leaf]),
        int(1, rows),
        list(1, 12, &[group]),
    ]);
    let length = (footer.len() as u32).to_le_bytes();
    let file = [&b"PAR1"[..], &pages, &footer, &length, b"PAR1"].concat();
    std::fs::write(path, file).unwrap();
}
