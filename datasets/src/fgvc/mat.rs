//! MATLAB's level 5 MAT files, as far as lists of images need them: numbers, text, cells and structs, little-endian,
//! compressed or not (MathWorks, "MAT-File Format", chapter 1). Objects, sparse arrays and version 7.3 (HDF5) are not
//! supported.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::read::ZlibDecoder;

use crate::error::DataError;

/// Values by name: the variables of a file, or the fields of one element of a struct.
pub type Struct = BTreeMap<String, Value>;

/// One array.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Numbers of any type, column by column.
    Numbers(Vec<f64>),
    /// Text.
    Text(String),
    /// A cell array.
    Cells(Vec<Value>),
    /// A struct array, element by element.
    Elements(Vec<Struct>),
    /// A class that is not supported here.
    Other,
}

impl Value {
    /// The value with that name.
    ///
    /// # Errors
    /// An unknown name.
    pub fn field<'a>(fields: &'a Struct, name: &str) -> Result<&'a Value, String> {
        fields.get(name).ok_or_else(|| {
            let names: Vec<&str> = fields.keys().map(String::as_str).collect();
            format!("there is no '{name}'; there are: {}", names.join(", "))
        })
    }

    /// The numbers.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn numbers(&self) -> Result<&[f64], String> {
        match self {
            Self::Numbers(numbers) => Ok(numbers),
            _ => Err("expected numbers".into()),
        }
    }

    /// The one number.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn number(&self) -> Result<f64, String> {
        match self.numbers()? {
            [number] => Ok(*number),
            numbers => Err(format!("expected one number, found {}", numbers.len())),
        }
    }

    /// The text; a cell that contains a single text counts as text.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn text(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Cells(cells) if cells.len() == 1 => cells[0].text(),
            _ => Err("expected text".into()),
        }
    }

    /// The cells.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn cells(&self) -> Result<&[Value], String> {
        match self {
            Self::Cells(cells) => Ok(cells),
            _ => Err("expected cells".into()),
        }
    }

    /// The elements of a struct array.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn elements(&self) -> Result<&[Struct], String> {
        match self {
            Self::Elements(elements) => Ok(elements),
            _ => Err("expected a struct".into()),
        }
    }
}

/// The variables of the file at `path`.
///
/// # Errors
/// A file that is missing, damaged or of another version.
pub fn read(path: &Path) -> Result<Struct, DataError> {
    let bytes = files::read_regular(path).map_err(|e| DataError::read(path, e))?;
    variables(&bytes).map_err(|message| DataError::read(path, message))
}

/// Length of the header: text, version, byte order.
const HEAD: usize = 128;

/// Types of data elements.
const COMPRESSED: u32 = 15;
const MATRIX: u32 = 14;

/// Maximum total size of decompressed variables, bytes; lists of images are smaller.
const LONGEST: u64 = 1 << 25;

/// Maximum length of a field's name, with the zero at its end.
const LONGEST_NAME: usize = 64;

fn variables(bytes: &[u8]) -> Result<Struct, String> {
    if bytes.starts_with(b"MATLAB 7.3") {
        return Err("it is of version 7.3 (HDF5); save it with -v7".into());
    }
    if bytes.len() < HEAD || &bytes[126..128] != b"IM" {
        return Err("it is no little-endian MAT file of level 5".into());
    }
    let mut rest = &bytes[HEAD..];
    let (mut variables, mut left) = (Struct::new(), LONGEST);
    while !rest.is_empty() {
        let (kind, data) = element(&mut rest)?;
        let inflated;
        let (kind, data) = match kind {
            COMPRESSED => {
                let mut text = Vec::new();
                let read = ZlibDecoder::new(data).take(left).read_to_end(&mut text);
                left -= read.map_err(|e| format!("a variable is damaged ({e})"))? as u64;
                if left == 0 {
                    return Err(format!(
                        "its variables take more than {LONGEST} bytes; it is no list of images"
                    ));
                }
                inflated = text;
                element(&mut &inflated[..])?
            }
            _ => (kind, data),
        };
        if kind == MATRIX {
            let (name, value) = matrix(data, 0)?;
            variables.insert(name, value);
        }
    }
    Ok(variables)
}

/// Removes the next data element from `rest`: its type and bytes.
fn element<'a>(rest: &mut &'a [u8]) -> Result<(u32, &'a [u8]), String> {
    let head = word(rest, 0)?;
    // Up to four bytes of data are stored within the eight bytes of the tag, after its type and length.
    let (kind, start, length, whole) = match head >> 16 {
        0 => {
            let (start, length) = (8, word(rest, 4)? as usize);
            // Only compressed variables are not padded to eight bytes.
            let filled = if head == COMPRESSED {
                length
            } else {
                length.next_multiple_of(8)
            };
            (head, start, length, start + filled)
        }
        length => (head & 0xFFFF, 4, length as usize, 8),
    };
    let data = rest.get(start..start + length).ok_or("it is cut short")?;
    *rest = rest.get(whole..).unwrap_or_default();
    Ok((kind, data))
}

fn word(bytes: &[u8], at: usize) -> Result<u32, String> {
    let bytes = bytes.get(at..at + 4).ok_or("it is cut short")?;
    Ok(u32::from_le_bytes(bytes.try_into().expect("4 bytes")))
}

/// An array: its name and value.
fn matrix(mut data: &[u8], depth: usize) -> Result<(String, Value), String> {
    const DEEPEST: usize = 16;
    if data.is_empty() {
        return Ok((String::new(), Value::Numbers(Vec::new())));
    }
    if depth > DEEPEST {
        return Err(format!("it is nested deeper than {DEEPEST}"));
    }
    let class = word(element(&mut data)?.1, 0)? & 0xFF;
    let dimensions = numbers(element(&mut data)?)?;
    let count = dimensions.iter().product::<f64>();
    let name = String::from_utf8_lossy(element(&mut data)?.1).into_owned();
    // Every element of an array takes at least one byte.
    if count > data.len() as f64 && matches!(class, 1 | 2) {
        return Err("it is cut short".into());
    }
    let inner = |data: &mut &[u8]| {
        let (kind, bytes) = element(data)?;
        match kind {
            MATRIX => Ok(matrix(bytes, depth + 1)?.1),
            kind => Err(format!("expected an array in '{name}', found type {kind}")),
        }
    };
    let value = match class {
        1 => Value::Cells(
            (0..count as usize)
                .map(|_| inner(&mut data))
                .collect::<Result<_, String>>()?,
        ),
        2 => {
            let width = numbers(element(&mut data)?)?.first().copied().unwrap_or(0.0) as usize;
            // Each element has the names of its own.
            if width > LONGEST_NAME {
                return Err(format!(
                    "the field names of '{name}' take {width} bytes each; MATLAB's take at most {LONGEST_NAME}"
                ));
            }
            let text = element(&mut data)?.1;
            let name = |bytes: &[u8]| {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                String::from_utf8_lossy(&bytes[..end]).into_owned()
            };
            let names: Vec<String> = text.chunks(width.max(1)).map(name).collect();
            let mut elements = Vec::new();
            // Elements without fields take no bytes, so the file could claim any number of them.
            for _ in 0..if names.is_empty() { 0 } else { count as usize } {
                let fields = names.iter().map(|name| Ok((name.clone(), inner(&mut data)?)));
                elements.push(fields.collect::<Result<Struct, String>>()?);
            }
            Value::Elements(elements)
        }
        4 => Value::Text(text(element(&mut data)?)?),
        6..=15 => Value::Numbers(numbers(element(&mut data)?)?),
        _ => Value::Other,
    };
    Ok((name, value))
}

/// Numbers of a data element, which may be stored in a narrower type than the class of their array.
fn numbers((kind, bytes): (u32, &[u8])) -> Result<Vec<f64>, String> {
    fn of<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        let chunks = bytes.chunks_exact(N);
        chunks.map(|chunk| value(chunk.try_into().expect("N bytes"))).collect()
    }
    Ok(match kind {
        1 => of(bytes, |b| f64::from(i8::from_le_bytes(b))),
        2 => of(bytes, |b| f64::from(u8::from_le_bytes(b))),
        3 => of(bytes, |b| f64::from(i16::from_le_bytes(b))),
        4 => of(bytes, |b| f64::from(u16::from_le_bytes(b))),
        5 => of(bytes, |b| f64::from(i32::from_le_bytes(b))),
        6 => of(bytes, |b| f64::from(u32::from_le_bytes(b))),
        7 => of(bytes, |b| f64::from(f32::from_le_bytes(b))),
        9 => of(bytes, f64::from_le_bytes),
        12 => of(bytes, |b| i64::from_le_bytes(b) as f64),
        13 => of(bytes, |b| u64::from_le_bytes(b) as f64),
        kind => return Err(format!("expected numbers, found type {kind}")),
    })
}

/// Text of a data element: bytes or 16-bit units.
fn text((kind, bytes): (u32, &[u8])) -> Result<String, String> {
    match kind {
        1 | 2 | 16 => Ok(String::from_utf8_lossy(bytes).into_owned()),
        4 | 17 => {
            let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
            Ok(String::from_utf16_lossy(&units.collect::<Vec<_>>()))
        }
        kind => Err(format!("expected text, found type {kind}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [&kind.to_le_bytes()[..], &(data.len() as u32).to_le_bytes(), data].concat();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    /// A file with a struct `s` of one field, whose name has room for `width` bytes.
    fn file(width: i32) -> Vec<u8> {
        let mut name = vec![b'n'; 5];
        name.resize(width as usize, 0);
        let content = [
            stored(6, &[2, 0, 0, 0, 0, 0, 0, 0]),
            stored(5, &[1_i32.to_le_bytes(), 1_i32.to_le_bytes()].concat()),
            stored(1, b"s"),
            stored(5, &width.to_le_bytes()),
            stored(1, &name),
            stored(MATRIX, &[]),
        ];
        let mut head = vec![b' '; HEAD];
        head[126..].copy_from_slice(b"IM");
        [head, stored(MATRIX, &content.concat())].concat()
    }

    #[test]
    fn names_of_fields_are_as_short_as_matlabs() {
        let found = variables(&file(64)).unwrap();
        let elements = Value::field(&found, "s").and_then(Value::elements).unwrap();
        assert_eq!(elements.len(), 1);
        assert!(elements[0].contains_key("nnnnn"));
        let message = variables(&file(1 << 20)).unwrap_err();
        assert!(message.contains("field names of 's' take 1048576 bytes"), "{message}");
    }
}
