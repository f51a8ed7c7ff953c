//! A checksum inside the JSON files that hold results: the CRC-32C of the whole file, computed with zeros in its own place. A
//! flipped bit would otherwise become another result. A file without one, from an older version or written by hand, is read
//! as it is.

/// The field in pretty-printed JSON. In a string of a result, its quotes would have backslashes.
const KEY: &str = "\"crc32c\": \"";
const ZEROS: &str = "00000000";

/// False if the checksum in `file` does not match.
pub fn holds(file: &[u8]) -> bool {
    let place = file.windows(KEY.len()).position(|window| window == KEY.as_bytes());
    let Some(at) = place.map(|at| at + KEY.len()) else {
        return true;
    };
    file.get(at..at + ZEROS.len()) == Some(sum(file, at).as_bytes())
}

/// `text`, the pretty-printed JSON of a struct or of a list of structs, with a checksum as the first field.
pub fn sealed(mut text: String) -> String {
    // An empty struct has no line of its own, and nothing to lose.
    let Some(open) = text.find("{\n").map(|at| at + 2) else {
        return text;
    };
    let indent = " ".repeat(text[open..].len() - text[open..].trim_start().len());
    text.insert_str(open, &format!("{indent}{KEY}{ZEROS}\",\n"));
    let at = open + indent.len() + KEY.len();
    let sum = sum(text.as_bytes(), at);
    text.replace_range(at..at + ZEROS.len(), &sum);
    text
}

/// The checksum of `file`, as if zeros stood at `at`.
fn sum(file: &[u8], at: usize) -> String {
    let end = (at + ZEROS.len()).min(file.len());
    let before = crc32c::crc32c(&file[..at]);
    let sum = crc32c::crc32c_append(crc32c::crc32c_append(before, ZEROS.as_bytes()), &file[end..]);
    format!("{sum:08x}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::run::files::{read_json, write_sealed};

    #[test]
    fn a_flipped_bit_of_a_value_is_seen_and_files_without_a_checksum_are_read() {
        let one = json!({ "task": "\"crc32c\": \"", "value": 61.25, "scores": {} });
        for value in [one.clone(), json!([one, { "value": 2 }])] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("outcome.json");
            write_sealed(&path, &value).unwrap();
            let read = || read_json::<Value>(&path, "remove its folder");
            let mut found = read().unwrap().unwrap();
            let fields = match &mut found {
                Value::Array(all) => &mut all[0],
                one => one,
            };
            assert!(fields.as_object_mut().unwrap().shift_remove("crc32c").is_some());
            assert_eq!(found, value);
            let whole = std::fs::read(&path).unwrap();
            let digit = whole.windows(5).position(|part| part == b"61.25").unwrap();
            for at in digit..digit + 5 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1;
                std::fs::write(&path, flipped).unwrap();
                let message = read().unwrap_err();
                assert!(
                    message.contains("outcome.json") && message.contains("remove its folder"),
                    "{message}"
                );
            }
            std::fs::write(&path, value.to_string()).unwrap();
            assert_eq!(read().unwrap(), Some(value));
        }
        for empty in ["{}", "[]", "1"] {
            assert_eq!(sealed(empty.to_string()), empty);
        }
    }
}
