//! Files of a run folder: JSON files, written under a temporary name and renamed, and files to which JSON lines are
//! appended.

use std::io::ErrorKind;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::output::note;
use crate::run::sealed;

/// Writes `value` as JSON under a temporary name next to `path`, then renames the file.
///
/// # Errors
/// A file that cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|e| e.to_string())?;
    replace(path, text.as_bytes())
}

/// [`write_json`] with a checksum inside, which [`read_json`] compares; of a struct or a list of structs.
///
/// # Errors
/// A file that cannot be written.
pub fn write_sealed(path: &Path, value: &impl Serialize) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|e| e.to_string())?;
    replace(path, sealed::sealed(text).as_bytes())
}

/// Writes a file of a run folder completely or not at all; it is on disk when this returns. A link at `path` is
/// replaced.
///
/// # Errors
/// A file that cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), String> {
    files::replace(path, bytes).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

/// Makes the files of a result by `write`, which gets a folder for them, and then puts them into `out`, where they replace
/// those of an earlier result together. `maker`: the program, if all of its earlier result goes and files of others are to
/// stay. `last`: the file that other programs read first, missing while some files are old and some are new.
///
/// # Errors
/// What `write` says; a folder or file that cannot be written; with `maker`, a file of others in the place of one of these.
pub fn replace_together(
    out: &Path,
    maker: Option<&str>,
    last: Option<&str>,
    write: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("cannot write into {}: {e}", out.display());
    let staging = files::Staging::new(out).map_err(failed)?;
    let (made, named) = (staging.path().display().to_string(), out.display().to_string());
    write(staging.path()).map_err(|message| message.replace(&made, &named))?;
    match maker {
        Some(maker) => staging.put_as(maker, last),
        None => staging.put(last),
    }
    .map_err(failed)
}

/// [`replace_together`] by these texts, each given with its name.
///
/// # Errors
/// As [`replace_together`].
pub fn replace_texts(out: &Path, maker: Option<&str>, texts: &[(String, String)]) -> Result<(), String> {
    replace_together(out, maker, None, |made| {
        texts
            .iter()
            .try_for_each(|(name, text)| replace(&made.join(name), text.as_bytes()))
    })
}

/// Makes a folder, if there is none.
///
/// # Errors
/// A folder that cannot be made.
pub fn create_folder(path: &Path) -> Result<(), String> {
    files::create_folder(path).map_err(|e| format!("cannot make {}: {e}", path.display()))
}

/// Bytes of a JSON file at most, of those whose values are settings and results: parsed, it takes up to thirty times its
/// size in memory.
pub const LONGEST: u64 = 16 << 20;

/// The JSON in `path`, whose checksum, if it has one, must match; `None` if there is no such file. `advice` is appended to
/// the message about a damaged file.
///
/// # Errors
/// A file that cannot be read, is longer than [`LONGEST`] or is damaged.
pub fn read_json<T: DeserializeOwned>(path: &Path, advice: &str) -> Result<Option<T>, String> {
    parsed(path, files::read_limited(path, LONGEST), advice)
}

/// [`read_json`] of a file whose length depends on the data, such as the counts of every pair of classes. `T` must be a type
/// that is not much larger than its text.
///
/// # Errors
/// A file that cannot be read or is damaged.
pub fn read_long_json<T: DeserializeOwned>(path: &Path, advice: &str) -> Result<Option<T>, String> {
    parsed(path, files::read_regular(path), advice)
}

fn parsed<T: DeserializeOwned>(path: &Path, read: std::io::Result<Vec<u8>>, advice: &str) -> Result<Option<T>, String> {
    match read {
        Ok(bytes) if !sealed::holds(&bytes) => Err(format!(
            "{} is damaged (its checksum does not match); {advice}",
            path.display()
        )),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            let why = match e.is_data() {
                true => "was made by another program, or by another version of this one",
                false => "is damaged, or was made by another program",
            };
            format!("{} {why} ({e}); {advice}", path.display())
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        // What `files` refuses itself: the wrong kind of file, or one that is too long.
        Err(error) if error.kind() == ErrorKind::Other => {
            Err(format!("cannot read {}: {error}; {advice}", path.display()))
        }
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// Removes a folder, if there is one.
///
/// # Errors
/// A folder that cannot be removed.
pub fn remove_folder(path: &Path) -> Result<(), String> {
    files::remove_folder(path).map_err(|e| format!("cannot remove {}: {e}", path.display()))
}

/// A line of a file that is appended to: its text and its value.
pub type Line<T> = (String, T);

/// The complete lines of `path`, a file that is written line by line; none if it is missing. An incomplete last line is
/// left out; so is a damaged line within the file, which is also reported on standard error.
///
/// # Errors
/// A file that cannot be read.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<Line<T>>, String> {
    lines_of(path, |text| Some((text.to_string(), serde_json::from_str(text).ok()?)))
}

/// As [`read_lines`], by `read`, which gives nothing for a damaged line.
///
/// # Errors
/// A file that cannot be read.
pub fn lines_of<T>(path: &Path, read: impl Fn(&str) -> Option<Line<T>>) -> Result<Vec<Line<T>>, String> {
    let bytes = match files::read_regular(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    let mut lines = Vec::new();
    let mut rest = bytes.as_slice();
    let mut number = 0;
    // Anything after the last line break is an unfinished line.
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        (rest, number) = (after, number + 1);
        match std::str::from_utf8(line).ok().and_then(&read) {
            Some(line) => lines.push(line),
            None => note(format_args!(
                "{}:{number} is damaged: the line is left out",
                path.display()
            )),
        }
    }
    Ok(lines)
}

/// All lines of `path`, a file of JSON lines from elsewhere: every line must be valid.
///
/// # Errors
/// A file that cannot be read, a malformed line.
pub fn read_json_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, String> {
    let text = files::read_text(path, u64::MAX).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|e| format!("{}:{}: malformed JSON ({e})", path.display(), at + 1))
        })
        .collect()
}

/// Rewrites `path` if it does not contain exactly `lines`.
///
/// # Errors
/// A file that cannot be written.
pub fn keep_lines<T>(path: &Path, lines: &[Line<T>]) -> Result<(), String> {
    let text: String = lines.iter().map(|(line, _)| format!("{line}\n")).collect();
    match files::read_regular(path) {
        Ok(there) if there == text.as_bytes() => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound && text.is_empty() => Ok(()),
        _ => replace(path, text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_file_of_a_length_that_no_result_has_is_not_parsed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outcome.json");
        let padded = |bytes: u64| std::fs::write(&path, format!("1{}", " ".repeat(bytes as usize - 1))).unwrap();
        padded(LONGEST);
        assert_eq!(read_json::<u8>(&path, "").unwrap(), Some(1));
        padded(LONGEST + 1);
        let message = read_json::<u8>(&path, "remove its folder").unwrap_err();
        assert!(
            message.contains("outcome.json: it has 16777217 bytes") && message.contains("remove its folder"),
            "{message}"
        );
        assert_eq!(read_long_json::<u8>(&path, "").unwrap(), Some(1));
    }

    #[test]
    fn a_file_of_another_program_is_not_called_damaged() {
        #[derive(Debug, serde::Deserialize)]
        struct Data {
            #[serde(rename = "sha256")]
            _sum: String,
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.json");
        for (text, why) in [
            ("[1, 2]", "data.json was made by another program, or"),
            ("{\"rows\": 3}", "data.json was made by another program, or"),
            ("name,age", "data.json is damaged, or was made by another program"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = read_json::<Data>(&path, "remove it").unwrap_err();
            assert!(message.contains(why) && message.ends_with("; remove it"), "{message}");
        }
    }

    #[test]
    fn whole_lines_survive_a_torn_end_and_a_flipped_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines.jsonl");
        assert!(read_lines::<Value>(&path).unwrap().is_empty());
        // The file ends with the first byte of a two-byte character.
        std::fs::write(&path, b"{\"a\":1}\n{\"a\":\xff2}\n{\"a\":3}\n{\"a\":\"\xc3").unwrap();
        let lines = read_lines::<Value>(&path).unwrap();
        let values: Vec<&Value> = lines.iter().map(|(_, value)| &value["a"]).collect();
        assert_eq!(values, [1, 3]);
        keep_lines(&path, &lines).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"a\":3}\n");
    }
}
