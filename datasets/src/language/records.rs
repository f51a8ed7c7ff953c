//! Objects from JSON, JSONL, CSV and parquet files, each with its position for messages.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserializer as _;
use serde::de::{SeqAccess, Visitor};
use serde_json::{Map, Value};

pub use crate::language::record::{Record, kind};

use crate::language::record::Place;
use crate::language::{TextError, json_text};
use crate::packed;
use crate::parquet_rows::{ParquetFile, object};
use crate::text_file;

/// The file of test questions in a suite's folder: test.json or, if that is missing, test.jsonl or test.parquet.
pub fn test_file(folder: &Path) -> PathBuf {
    let others = ["test.jsonl", "test.parquet"].map(|name| folder.join(name));
    let usual = folder.join("test.json");
    match usual.is_file() {
        true => usual,
        false => others.into_iter().find(|path| path.is_file()).unwrap_or(usual),
    }
}

/// All objects in `path`: a JSON array of objects, JSONL (one object per line; empty lines are skipped), the rows of a
/// .parquet file, or those of a .csv or .tsv file with a header (an empty cell is null). All formats except parquet may
/// be compressed (.gz). A byte order mark is skipped; NaN is read as null, and an integer beyond 64 bits as text.
///
/// # Errors
/// A file that cannot be read, is malformed (with the line), or is empty.
pub fn read(path: &Path) -> Result<Vec<Record>, TextError> {
    read_fields(path, &[])
}

/// Same as [`read`], but keeps only the fields in `wanted`, so that a file with many others takes no memory for them; all
/// fields if it is empty.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_fields(path: &Path, wanted: &[&str]) -> Result<Vec<Record>, TextError> {
    read_each(path, wanted)?.into_iter().collect()
}

/// Same as [`read_fields`], but with an error for each line or item that is not an object, so that the others can still
/// be used.
///
/// # Errors
/// A file that cannot be read, is a malformed array (with the line), or is empty.
pub(crate) fn read_each(path: &Path, wanted: &[&str]) -> Result<Vec<Result<Record, TextError>>, TextError> {
    let extension = |path: &Path| path.extension().unwrap_or_default().to_ascii_lowercase();
    let compressed = extension(path) == "gz";
    let bytes = || {
        let mut bytes = files::read_regular(path).map_err(|e| TextError::read(path, e))?;
        if compressed {
            bytes = packed::unpacked(&bytes).map_err(|e| TextError::read(path, e))?;
        }
        match files::pointer(&bytes) {
            Some(advice) => Err(TextError::read(path, advice)),
            None => Ok(text_file::utf8(bytes)),
        }
    };
    let extension = match compressed {
        true => extension(&path.with_extension("")),
        false => extension(path),
    };
    let mut made = Maker::new(path, wanted);
    let records = match extension.to_str() {
        Some("parquet") => rows(path, &mut made)?,
        Some("csv") => cells(&bytes()?, b',', &mut made)?,
        Some("tsv") => cells(&bytes()?, b'\t', &mut made)?,
        _ => {
            let bytes = bytes()?;
            match bytes.trim_ascii_start().starts_with(b"[") {
                true => array(&bytes, &mut made)?,
                false => lines(&bytes, &mut made),
            }
        }
    };
    if records.is_empty() {
        let path = path.to_path_buf();
        return Err(TextError::Empty { path, what: "object" });
    }
    Ok(records)
}

/// Makes the records of a file.
struct Maker<'a> {
    path: Arc<Path>,
    wanted: &'a [&'a str],
    /// Names of the fields of the record before, which the next one mostly has too.
    columns: Arc<[String]>,
}

impl<'a> Maker<'a> {
    fn new(path: &Path, wanted: &'a [&'a str]) -> Self {
        Self {
            path: path.into(),
            wanted,
            columns: Arc::default(),
        }
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.contains(&name)
    }

    fn error(&self, place: Place, message: impl ToString) -> TextError {
        place.error(&self.path, message.to_string())
    }

    /// A record of a table whose columns are known.
    fn row(&self, fields: Map<String, Value>, place: Place) -> Record {
        Record {
            fields,
            columns: self.columns.clone(),
            path: self.path.clone(),
            place,
        }
    }

    /// The record that a JSON value is.
    fn object(&mut self, value: Value, place: Place) -> Result<Record, TextError> {
        let Value::Object(fields) = value else {
            let message = format!("found {}, expected an object", kind(&value));
            return Err(self.error(place, message));
        };
        if !fields.keys().eq(self.columns.iter()) {
            self.columns = fields.keys().cloned().collect();
        }
        let fields = match self.wanted.is_empty() {
            true => fields,
            false => fields.into_iter().filter(|(name, _)| self.is_wanted(name)).collect(),
        };
        Ok(self.row(fields, place))
    }
}

fn rows(path: &Path, made: &mut Maker) -> Result<Vec<Result<Record, TextError>>, TextError> {
    let mut records = Vec::new();
    let file = ParquetFile::open(path).map_err(|e| TextError::read(path, e))?;
    made.columns = file.columns().into_iter().map(String::from).collect();
    let read = file.rows::<String>(made.wanted, |row| {
        records.push(Ok(made.row(object(row), Place::Item(records.len() + 1))));
        Ok(())
    });
    read.map_err(|e| TextError::read(path, e))?;
    Ok(records)
}

/// The rows of a text table. A row whose number of cells differs from the header gets its own error.
fn cells(bytes: &[u8], delimiter: u8, made: &mut Maker) -> Result<Vec<Result<Record, TextError>>, TextError> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(bytes);
    let names = reader.headers().map_err(|e| TextError::read(&made.path, e))?;
    made.columns = names.iter().map(String::from).collect();
    let wanted = made.columns.iter().enumerate().filter(|(_, name)| made.is_wanted(name));
    let wanted: Vec<(usize, &String)> = wanted.collect();
    let (mut counted, mut line) = (0, 1);
    let mut line_of = |position: Option<&csv::Position>| {
        // The crate's own count is one too low after a Windows line break.
        let start = position.map_or(counted, |position| position.byte() as usize);
        let breaks = bytes[start..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
        let start = (start + breaks.count()).max(counted);
        line += bytes[counted..start].iter().filter(|byte| **byte == b'\n').count();
        counted = start;
        line
    };
    let mut records = Vec::new();
    for row in reader.byte_records() {
        let (line, row) = match row {
            Ok(row) => (line_of(row.position()), Ok(row)),
            Err(error) => (line_of(error.position()), Err(error.to_string())),
        };
        let row = row.and_then(|row| csv::StringRecord::from_byte_record(row).map_err(|_| NOT_UTF8.to_string()));
        records.push(match row {
            Err(message) => Err(made.error(Place::Line(line), message)),
            Ok(row) => {
                // Wide tables are empty for the most part.
                let cell = |(index, name): &(usize, &String)| {
                    let cell = row.get(*index).filter(|cell| !cell.is_empty())?;
                    Some((name.to_string(), cell.into()))
                };
                Ok(made.row(wanted.iter().filter_map(cell).collect(), Place::Line(line)))
            }
        });
    }
    Ok(records)
}

fn array(bytes: &[u8], made: &mut Maker) -> Result<Vec<Result<Record, TextError>>, TextError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes[..error.valid_up_to()].iter();
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        made.error(Place::Line(line), NOT_UTF8)
    })?;
    let text = json_text::standard(text);
    let mut parser = serde_json::Deserializer::from_str(&text);
    let items = parser.deserialize_seq(Items { made: &mut *made });
    let items = items.and_then(|items| parser.end().map(|()| items));
    items.map_err(|e| made.error(Place::Line(e.line()), format!("malformed JSON ({e})")))
}

/// Makes each item of a list a record as soon as it is parsed, so that what is not wanted of it is dropped at once.
struct Items<'m, 'a> {
    made: &'m mut Maker<'a>,
}

impl<'de> Visitor<'de> for Items<'_, '_> {
    type Value = Vec<Result<Record, TextError>>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut records = Vec::new();
        while let Some(value) = list.next_element::<Value>()? {
            records.push(self.made.object(value, Place::Item(records.len() + 1)));
        }
        Ok(records)
    }
}

fn lines(bytes: &[u8], made: &mut Maker) -> Vec<Result<Record, TextError>> {
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    lines
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(index, line)| {
            let place = Place::Line(index + 1);
            let text = std::str::from_utf8(line).map_err(|_| made.error(place, NOT_UTF8))?;
            let value = serde_json::from_str(&json_text::standard(text));
            let value = value.map_err(|e| made.error(place, format!("malformed JSON ({e})")))?;
            made.object(value, place)
        })
        .collect()
}

const NOT_UTF8: &str = "it is not UTF-8; save the file as UTF-8";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn written(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn arrays_and_lines_give_the_same_objects() {
        let (_a, array) = written("a.json", "[{\"x\": \"1\"},\n {\"x\": 2}]");
        let (_b, lines) = written("b.jsonl", "{\"x\": \"1\"}\n\n{\"x\": 2}\n");
        for path in [array, lines] {
            let records = read(&path).unwrap();
            let texts: Vec<_> = records.iter().map(|r| r.required("x").unwrap()).collect();
            assert_eq!(texts, ["1", "2"]);
        }
    }

    #[test]
    fn what_is_malformed_is_named_with_its_place() {
        let message = |name: &str, text: &str| {
            let (_folder, path) = written(name, text);
            read(&path).unwrap_err().to_string()
        };
        assert!(message("a.jsonl", "{\"x\": 1}\n{\"x\": \n").contains("a.jsonl:2: malformed JSON"));
        assert!(message("a.json", "[{\"x\": 1},\n{\"x\" 2}]").contains("a.json:2: malformed JSON"));
        assert!(message("a.jsonl", "3\n").contains("a.jsonl:1: found a number, expected an object"));
        assert!(message("a.json", "[]").contains("holds no object"));
        assert!(
            read(Path::new("/nonexistent/a.json"))
                .unwrap_err()
                .to_string()
                .contains("/nonexistent/a.json")
        );
    }

    #[test]
    fn marks_nan_great_numbers_and_bad_lines() {
        let text = b"\xEF\xBB\xBF{\"x\": 123456789012345678901234567890, \"y\": NaN}\r\n{\"x\": \"\xFF\"}\n{\"x\": 1}";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        fs::write(&path, text).unwrap();
        let records = read_each(&path, &[]).unwrap();
        let [Ok(first), Err(second), Ok(third)] = &records[..] else {
            panic!("{records:?}")
        };
        assert_eq!(first.required("x").unwrap(), "123456789012345678901234567890");
        assert_eq!((first.value("y"), third.required("x").unwrap().as_str()), (None, "1"));
        assert!(second.to_string().contains("a.jsonl:2: it is not UTF-8"), "{second}");
        assert!(
            first
                .required("y")
                .unwrap_err()
                .to_string()
                .ends_with("a.jsonl:1: field 'y' is null")
        );
    }

    #[test]
    fn a_pointer_of_git_lfs_is_named() {
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 12\n";
        for name in ["a.json", "a.jsonl", "a.csv", "a.parquet"] {
            let (_folder, path) = written(name, pointer);
            let message = read(&path).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("git lfs pull"), "{message}");
        }
    }

    #[test]
    fn tables_of_text_are_read_by_their_names() {
        let text = "\u{feff}instruction,output,note\r\n\"a, \"\"b\"\"\",3,\r\nshort\r\n\"two\nlines\",4,x\r\n";
        let (_folder, path) = written("a.csv", text);
        let records = read_each(&path, &[]).unwrap();
        let [Ok(first), Err(second), Ok(third)] = &records[..] else {
            panic!("{records:?}")
        };
        assert_eq!(first.required("instruction").unwrap(), "a, \"b\"");
        assert_eq!(
            (first.value("note"), third.required("instruction").unwrap().as_str()),
            (None, "two\nlines")
        );
        assert!(second.to_string().contains("a.csv:3: "), "{second}");
        let null = first.required("note").unwrap_err().to_string();
        assert!(null.ends_with("a.csv:2: field 'note' is null"), "{null}");
        // An empty cell takes no memory.
        assert_eq!(first.fields.len(), 2);
        assert!(
            third
                .required("none")
                .unwrap_err()
                .to_string()
                .contains("a.csv:4: no field 'none'; found: instruction, output, note")
        );
        let (_folder, path) = written("a.tsv", "q\ta\n1 + 1\t2\n");
        assert_eq!(read(&path).unwrap()[0].required("a").unwrap(), "2");
    }

    #[test]
    fn a_missing_field_is_named_with_what_is_there() {
        let (_folder, path) = written("a.jsonl", "{\"q\": \"x\", \"list\": []}\n");
        let record = read(&path).unwrap().remove(0);
        let message = record.required("question").unwrap_err().to_string();
        assert!(
            message.ends_with("a.jsonl:1: no field 'question'; found: q, list"),
            "{message}"
        );
        assert!(
            record
                .text("list")
                .unwrap_err()
                .to_string()
                .contains("a list, expected a string")
        );
    }

    #[test]
    fn only_the_wanted_fields_are_kept_and_all_are_known() {
        for (name, text) in [
            ("a.csv", "q,other,a,more\n1,x,2,y\n3,x,4,y\n"),
            ("a.tsv", "q\tother\ta\tmore\n1\tx\t2\ty\n3\tx\t4\ty\n"),
            (
                "a.jsonl",
                "{\"q\": 1, \"other\": \"x\", \"a\": 2, \"more\": []}\n{\"q\": 3, \"other\": \"x\", \"a\": 4, \"more\": []}\n",
            ),
            (
                "a.json",
                "[{\"q\": 1, \"other\": \"x\", \"a\": 2, \"more\": []}, {\"q\": 3, \"other\": \"x\", \"a\": 4, \"more\": []}]",
            ),
        ] {
            let (_folder, path) = written(name, text);
            let records = read_fields(&path, &["a", "q", "none"]).unwrap();
            assert_eq!(records.len(), 2, "{name}");
            for (record, answer) in records.iter().zip(["2", "4"]) {
                assert_eq!(record.fields.keys().collect::<Vec<_>>(), ["q", "a"], "{name}");
                assert_eq!(record.required("a").unwrap(), answer);
                assert!(record.has("other") && !record.has("none"));
                let message = record.required("none").unwrap_err().to_string();
                assert!(
                    message.ends_with("no field 'none'; found: q, other, a, more"),
                    "{message}"
                );
            }
            // The names take memory once.
            assert!(Arc::ptr_eq(&records[0].columns, &records[1].columns), "{name}");
        }
    }
}
