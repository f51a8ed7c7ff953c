//! Files of JSON lines from which an interrupted run continues: each line ends with the CRC-32C of what stands before it. A
//! flipped bit would otherwise become another answer, and the score be computed from that.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::run::files::{Line, lines_of};

/// The last field of a line. In a string, its quotes would have backslashes.
const KEY: &str = ",\"crc32c\":\"";
const END: &str = "\"}";

/// `value`, a struct with fields, as a line with its checksum.
///
/// # Errors
/// A value that JSON cannot hold.
pub fn line(value: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(value)
        .map(|text| sealed(&text))
        .map_err(|e| e.to_string())
}

/// As [`read_lines`](crate::run::files::read_lines); a line whose checksum does not match is damaged. A line without one,
/// from an older version, gets it.
///
/// # Errors
/// A file that cannot be read.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<Line<T>>, String> {
    lines_of(path, |text| {
        let value = serde_json::from_str(text).ok().filter(|_| holds(text))?;
        let line = match split(text) {
            Some(_) => text.to_string(),
            None => sealed(text),
        };
        Some((line, value))
    })
}

/// False if the checksum at the end of `line` does not match.
pub fn holds(line: &str) -> bool {
    split(line).is_none_or(|(before, sum)| sum == checksum(before))
}

fn sealed(text: &str) -> String {
    match text.strip_suffix('}') {
        Some(before) => format!("{before}{KEY}{}{END}", checksum(before)),
        None => text.to_string(),
    }
}

/// A line before its checksum, and the checksum, if it has one.
fn split(line: &str) -> Option<(&str, &str)> {
    line.strip_suffix(END)?.rsplit_once(KEY)
}

fn checksum(text: &str) -> String {
    format!("{:08x}", crc32c::crc32c(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_changed_character_of_a_line_is_seen_and_lines_without_a_checksum_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answers.jsonl");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read::<Value>(&path).unwrap()
        };
        let value = json!({ "index": 0, "output": "so \",\"crc32c\":\"\" é", "correct": false });
        let whole = line(&value).unwrap();
        let mut found = read(&format!("{whole}\n"));
        let (text, mut kept) = found.remove(0);
        assert_eq!(text, whole);
        assert!(kept.as_object_mut().unwrap().shift_remove("crc32c").is_some());
        assert_eq!(kept, value);
        // Whichever character changes: the line is left out, or its values are the same.
        for at in 0..whole.len() {
            let mut bytes = whole.clone().into_bytes();
            bytes[at] ^= 1;
            std::fs::write(&path, [&bytes[..], b"\n"].concat()).unwrap();
            for (_, found) in super::read::<Value>(&path).unwrap() {
                for (field, value) in value.as_object().unwrap() {
                    assert_eq!(found.get(field), Some(value), "{at}: {found}");
                }
            }
        }
        let flipped = whole.replace("false", "true");
        assert!(!holds(&flipped) && read(&format!("{flipped}\n{whole}\n")).len() == 1);
        let old = format!("{value}\n");
        assert_eq!(read(&old), [(whole, value)]);
    }
}
