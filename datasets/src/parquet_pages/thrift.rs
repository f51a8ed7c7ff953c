//! Thrift's compact protocol, as far as headers and footers of parquet files need it.

use std::io::{self, Read};

/// Levels of nested structures, beyond which a file is damaged.
pub(super) const DEEPEST: usize = 16;

const DAMAGED: &str = "its metadata is damaged; fetch it again";

/// Numbers of fields that are kept of a structure, and 0.
pub(super) const FIELDS: usize = 9;

// Thrift's types.
pub(super) const TRUE: u8 = 1;
pub(super) const FALSE: u8 = 2;
const INT8: u8 = 3;
const INT16: u8 = 4;
pub(super) const INT32: u8 = 5;
const INT64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
pub(super) const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
pub(super) const STRUCTURE: u8 = 12;

/// Reads values one after the other.
pub(super) struct Compact<R> {
    source: R,
    taken: u64,
}

impl<R: Read> Compact<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, taken: 0 }
    }

    /// Bytes that were read.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    fn byte(&mut self) -> Result<u8, String> {
        let mut byte = [0];
        self.source.read_exact(&mut byte).map_err(|_| DAMAGED)?;
        self.taken += 1;
        Ok(byte[0])
    }

    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(DAMAGED.into())
    }

    pub(super) fn integer(&mut self) -> Result<i64, String> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// Number and type of the next field of a structure; `None` at its end.
    pub(super) fn field(&mut self, last: &mut i16) -> Result<Option<(i16, u8)>, String> {
        let head = self.byte()?;
        if head & 0x0F == 0 {
            return Ok(None);
        }
        *last = match head >> 4 {
            0 => i16::try_from(self.integer()?).map_err(|_| DAMAGED)?,
            more => last.checked_add(more.into()).ok_or(DAMAGED)?,
        };
        Ok(Some((*last, head & 0x0F)))
    }

    /// The integers and truth values of a structure, by their numbers.
    pub(super) fn integers(&mut self) -> Result<[Option<i64>; FIELDS], String> {
        let (mut found, mut last) = ([None; FIELDS], 0);
        while let Some((id, kind)) = self.field(&mut last)? {
            let value = match kind {
                TRUE => 1,
                FALSE => 0,
                INT16 | INT32 | INT64 => self.integer()?,
                _ => {
                    self.skip(kind, DEEPEST)?;
                    continue;
                }
            };
            if let Some(slot) = usize::try_from(id).ok().and_then(|id| found.get_mut(id)) {
                *slot = Some(value);
            }
        }
        Ok(found)
    }

    /// Length of a list, and the type of its elements, which follow.
    pub(super) fn list(&mut self) -> Result<(u64, u8), String> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.number()?,
            few => few.into(),
        };
        Ok((count, head & 0x0F))
    }

    /// Passes over a value of that type.
    pub(super) fn skip(&mut self, kind: u8, depth: usize) -> Result<(), String> {
        let depth = depth.checked_sub(1).ok_or(DAMAGED)?;
        match kind {
            TRUE | FALSE => {}
            INT8 => {
                self.byte()?;
            }
            INT16 | INT32 | INT64 => {
                self.number()?;
            }
            DOUBLE => self.pass(8)?,
            BINARY => {
                let length = self.number()?;
                self.pass(length)?;
            }
            LIST | SET => {
                let (count, kind) = self.list()?;
                for _ in 0..count {
                    self.element(kind, depth)?;
                }
            }
            MAP => {
                let count = self.number()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                for _ in 0..count {
                    self.element(kinds >> 4, depth)?;
                    self.element(kinds & 0x0F, depth)?;
                }
            }
            STRUCTURE => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip(kind, depth)?;
                }
            }
            _ => return Err(DAMAGED.into()),
        }
        Ok(())
    }

    /// Passes over an element of a list or map, where truth values take a byte.
    fn element(&mut self, kind: u8, depth: usize) -> Result<(), String> {
        match kind {
            TRUE | FALSE => self.byte().map(drop),
            _ => self.skip(kind, depth),
        }
    }

    fn pass(&mut self, length: u64) -> Result<(), String> {
        let passed = io::copy(&mut self.source.by_ref().take(length), &mut io::sink());
        match passed {
            Ok(passed) if passed == length => {
                self.taken += length;
                Ok(())
            }
            _ => Err(DAMAGED.into()),
        }
    }
}
