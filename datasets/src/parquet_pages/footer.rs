//! Checks the end of a file before the crate reads it, which follows nested columns as deep as they go.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::thrift::{Compact, DEEPEST, FIELDS, LIST, STRUCTURE};

/// Most levels of nested columns.
const MOST_LEVELS: usize = 64;

/// The field of a file's metadata that lists its columns, parents before their children.
const SCHEMA: i16 = 2;

/// The field of a column that says how many children it has.
const CHILDREN: usize = 5;

/// Refuses columns that are nested too deep. Whatever else is wrong is left to the reader.
///
/// # Errors
/// Such columns, and metadata that is damaged.
pub(crate) fn check(mut file: &File, length: u64) -> Result<(), String> {
    let mut end = [0; 8];
    let Some(place) = length.checked_sub(8) else {
        return Ok(());
    };
    file.seek(SeekFrom::Start(place)).map_err(|e| e.to_string())?;
    file.read_exact(&mut end).map_err(|e| e.to_string())?;
    let [a, b, c, d, magic @ ..] = end;
    let start = place.checked_sub(u32::from_le_bytes([a, b, c, d]).into());
    match start {
        Some(start) if magic == *b"PAR1" => {
            file.seek(SeekFrom::Start(start)).map_err(|e| e.to_string())?;
            let mut bytes = Vec::new();
            file.take(place - start)
                .read_to_end(&mut bytes)
                .map_err(|e| e.to_string())?;
            check_levels(&bytes)
        }
        _ => Ok(()),
    }
}

fn check_levels(metadata: &[u8]) -> Result<(), String> {
    let mut compact = Compact::new(metadata);
    let mut last = 0;
    while let Some((id, kind)) = compact.field(&mut last)? {
        if (id, kind) != (SCHEMA, LIST) {
            compact.skip(kind, DEEPEST)?;
            continue;
        }
        let (count, kind) = compact.list()?;
        if kind != STRUCTURE {
            return Err("its list of columns is damaged".into());
        }
        // Children that each of the parents still waits for.
        let mut waiting: Vec<i64> = Vec::new();
        for _ in 0..count {
            let column: [Option<i64>; FIELDS] = compact.integers()?;
            if let Some(parent) = waiting.last_mut() {
                *parent -= 1;
            }
            waiting.push(column[CHILDREN].unwrap_or(0));
            while waiting.last().is_some_and(|children| *children <= 0) {
                waiting.pop();
            }
            if waiting.len() > MOST_LEVELS {
                return Err(format!(
                    "its columns are nested more than {MOST_LEVELS} levels deep; write it anew with plain columns"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metadata with these numbers of children, parents first.
    fn metadata(children: &[u8]) -> Vec<u8> {
        // A name (field 4) and the number of children (field 5).
        let column = |children: &u8| match children {
            0 => vec![0x48, 1, b'c', 0],
            _ => vec![0x48, 1, b'c', 0x15, children * 2, 0],
        };
        let columns: Vec<u8> = children.iter().flat_map(column).collect();
        let count = [children.len() as u8 | 0x80, (children.len() >> 7) as u8];
        [&[0x15, 2, 0x19, 0xFC][..], &count, &columns, &[0]].concat()
    }

    #[test]
    fn columns_may_be_nested_as_deep_as_files_have_them() {
        assert_eq!(check_levels(&metadata(&[3, 0, 2, 0, 1, 0, 1, 1, 0])), Ok(()));
        // Many columns beside each other.
        assert_eq!(check_levels(&metadata(&[&[60][..], &[0; 60]].concat())), Ok(()));
        assert_eq!(check_levels(&metadata(&[[1; 64].to_vec(), vec![0]].concat())), Ok(()));
        let deep = check_levels(&metadata(&[[1; 65].to_vec(), vec![0]].concat())).unwrap_err();
        assert!(deep.contains("more than 64 levels"), "{deep}");
        assert!(check_levels(&metadata(&[1, 0])[..9]).is_err());
    }

    #[test]
    fn what_is_no_parquet_file_is_left_to_the_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for bytes in [&b"short"[..], b"no parquet at all", b"PAR1\xFF\xFF\xFF\x7FPAR1"] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(check(&File::open(&path).unwrap(), bytes.len() as u64), Ok(()));
        }
    }
}
