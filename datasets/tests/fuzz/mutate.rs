//! Mutations of a valid file.

use proptest::collection::vec;
use proptest::prelude::*;

/// Numbers that readers get wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0xFFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x7FFF_FFFF_FFFF_FFFF,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Values of JSON that readers get wrong.
const VALUES: [&str; 20] = [
    "0",
    "-1",
    "1",
    "2",
    "65536",
    "1000000000",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "1e999",
    "-0.0",
    "0.5",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"../../x\"",
    "\"\\u0000\\u001b\"",
    "[[[[1, null], {}], \"a\"]]",
];

/// One change; places are shares of the file's length.
#[derive(Debug, Clone)]
enum Change {
    Flip(f64, u8),
    Set(f64, u8),
    Number {
        at: f64,
        edge: usize,
        bytes: usize,
        big: bool,
    },
    Insert(f64, Vec<u8>),
    Remove(f64, usize),
    Repeat {
        at: f64,
        length: usize,
        times: usize,
    },
    Cut(f64),
    Splice {
        at: f64,
        other: usize,
        from: f64,
        length: usize,
    },
    Digit(f64, u8),
    /// The next value of JSON becomes another one.
    Value(f64, usize),
}

/// A file made of one of some seeds.
#[derive(Debug, Clone)]
pub struct Mutation {
    seed: usize,
    changes: Vec<Change>,
    /// Checksums are made right again, so that what is behind them is read.
    repaired: bool,
}

/// Makes checksums right.
pub type Repair = fn(&mut [u8]);

fn change() -> impl Strategy<Value = Change> {
    let at = 0.0..1.0_f64;
    prop_oneof![
        3 => (at.clone(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        3 => (at.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        3 => (at.clone(), 0..EDGES.len(), 0..4_u32, any::<bool>())
            .prop_map(|(at, edge, power, big)| Change::Number { at, edge, bytes: 1 << power, big }),
        1 => (at.clone(), vec(any::<u8>(), 1..24)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (at.clone(), 1..64_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        1 => (at.clone(), 1..48_usize, 1..200_usize)
            .prop_map(|(at, length, times)| Change::Repeat { at, length, times }),
        1 => at.clone().prop_map(Change::Cut),
        1 => (at.clone(), any::<usize>(), at.clone(), 1..256_usize)
            .prop_map(|(at, other, from, length)| Change::Splice { at, other, from, length }),
        1 => (at.clone(), b'0'..=b'9').prop_map(|(at, digit)| Change::Digit(at, digit)),
        2 => (at, 0..VALUES.len()).prop_map(|(at, value)| Change::Value(at, value)),
    ]
}

/// Mutations of one of `seeds` files.
pub fn file(seeds: usize) -> impl Strategy<Value = Mutation> {
    (0..seeds, vec(change(), 1..6), any::<bool>()).prop_map(|(seed, changes, repaired)| Mutation {
        seed,
        changes,
        repaired,
    })
}

impl Mutation {
    /// The mutated file.
    pub fn apply(&self, seeds: &[Vec<u8>], repair: Option<Repair>) -> Vec<u8> {
        let mut bytes = seeds[self.seed].clone();
        for change in &self.changes {
            change.apply(&mut bytes, seeds);
        }
        if let (true, Some(repair)) = (self.repaired, repair) {
            repair(&mut bytes);
        }
        bytes
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let length = bytes.len();
        let place = |share: f64| (share * length as f64) as usize;
        match self {
            Self::Flip(at, bit) => {
                if let Some(byte) = bytes.get_mut(place(*at)) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Set(at, value) => {
                if let Some(byte) = bytes.get_mut(place(*at)) {
                    *byte = *value;
                }
            }
            Self::Number {
                at,
                edge,
                bytes: count,
                big,
            } => {
                let number = EDGES[*edge];
                let written = match big {
                    true => number.to_be_bytes()[8 - count..].to_vec(),
                    false => number.to_le_bytes()[..*count].to_vec(),
                };
                let at = place(*at);
                for (byte, value) in bytes.iter_mut().skip(at).zip(written) {
                    *byte = value;
                }
            }
            Self::Insert(at, inserted) => {
                let at = place(*at);
                bytes.splice(at..at, inserted.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = place(*at);
                bytes.drain(at..(at + count).min(length));
            }
            Self::Repeat {
                at,
                length: count,
                times,
            } => {
                let at = place(*at);
                let repeated = bytes[at..(at + count).min(length)].repeat(*times);
                bytes.splice(at..at, repeated);
            }
            Self::Cut(at) => bytes.truncate(place(*at)),
            Self::Splice {
                at,
                other,
                from,
                length: count,
            } => {
                let other = &seeds[other % seeds.len()];
                let from = (from * other.len() as f64) as usize;
                let part = other[from..(from + count).min(other.len())].to_vec();
                let at = place(*at);
                let end = (at + part.len()).min(length);
                bytes.splice(at..end, part);
            }
            Self::Value(at, value) => {
                if let Some((from, to)) = next_value(bytes, place(*at)) {
                    bytes.splice(from..to, VALUES[*value].bytes());
                }
            }
            Self::Digit(at, digit) => {
                // The next digit from there on, for formats of text.
                let at = place(*at);
                if let Some(byte) = bytes.iter_mut().skip(at).find(|byte| byte.is_ascii_digit()) {
                    *byte = *digit;
                }
            }
        }
    }
}

/// Where the next value after a colon, a comma or a bracket is, if it is a number, a word or a string.
fn next_value(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let rest = bytes.get(at..)?;
    let opening = at + rest.iter().position(|byte| matches!(byte, b':' | b'[' | b','))? + 1;
    let from = opening + bytes[opening..].iter().position(|byte| !byte.is_ascii_whitespace())?;
    let after = &bytes[from..];
    let length = match after.first()? {
        b'"' => {
            let closing = after[1..]
                .iter()
                .zip(after)
                .position(|(byte, before)| *byte == b'"' && *before != b'\\')?;
            closing + 2
        }
        byte if byte.is_ascii_alphanumeric() || *byte == b'-' => {
            let in_value = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
            after.iter().position(|byte| !in_value(byte)).unwrap_or(after.len())
        }
        _ => return None,
    };
    Some((from, from + length))
}
