//! Parquet files: those of pyarrow and Hugging Face's datasets (fixtures/make_parquet.py), and of the crate's own writer.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use datasets::language::example::{self, Fields};
use datasets::language::{Example, commonsense, records};
use datasets::{Resize, Task, root};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::{fixture, says};

/// The bytes of a PNG of 3 times 2 pixels of one grey.
fn png(value: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let picture = image::RgbImage::from_pixel(3, 2, image::Rgb([value; 3]));
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Writes pictures with labels; `note` is the file's `huggingface` note.
fn pictures(path: &Path, note: Option<&str>, rows: &[(Vec<u8>, i32)]) {
    let schema = "message schema { REQUIRED INT32 label; REQUIRED GROUP image { REQUIRED BINARY bytes; } }";
    let notes = note.map(|note| vec![KeyValue::new("huggingface".into(), note.to_string())]);
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(notes)
        .build();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
    // Two groups of rows, as large files have them.
    for rows in rows.chunks(rows.len().div_ceil(2)) {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let labels: Vec<i32> = rows.iter().map(|(_, label)| *label).collect();
        column.typed::<Int32Type>().write_batch(&labels, None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let files: Vec<ByteArray> = rows.iter().map(|(bytes, _)| bytes.clone().into()).collect();
        column.typed::<ByteArrayType>().write_batch(&files, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn load(path: &Path) -> Result<Task, datasets::DataError> {
    let names = root::tasks(path)?;
    root::task(path, &names[0], 2, Resize::default())
}

/// The grey of every picture, as bytes.
fn greys(images: &datasets::Images) -> Vec<u8> {
    let grey = |index: usize| images.rgb(index).unwrap().get_pixel(0, 0)[0];
    (0..images.len()).map(grey).collect()
}

#[test]
fn pictures_of_hugging_face_s_datasets() {
    let task = load(&fixture("parquet/pictures")).unwrap();
    assert_eq!(
        (task.name.as_str(), task.classes.clone()),
        ("pictures", vec!["even".into(), "odd".into()])
    );
    assert_eq!(
        (task.test.labels.clone(), greys(&task.test)),
        (vec![0, 1, 0], vec![0, 1, 2])
    );
    // A tenth of each class, rounded up, validates where there is no file for it.
    assert_eq!((task.train.len(), task.valid.len()), (6, 2));
    let mut all = [greys(&task.train), greys(&task.valid)].concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7]);
    for part in [&task.train, &task.valid] {
        assert!(
            part.labels
                .iter()
                .zip(greys(part))
                .all(|(label, grey)| *label == usize::from(grey % 2))
        );
    }
    assert_eq!(task.trained_and_tested(), 0);
}

#[test]
fn pictures_without_a_note_and_with_every_part() {
    let dir = tempfile::tempdir().unwrap();
    let rows = |values: &[u8]| {
        values
            .iter()
            .map(|value| (png(*value), i32::from(value % 3)))
            .collect::<Vec<_>>()
    };
    pictures(&dir.path().join("train.parquet"), None, &rows(&[0, 1, 2, 3, 4]));
    pictures(
        &dir.path().join("validation-00000-of-00001.parquet"),
        None,
        &rows(&[6, 7]),
    );
    pictures(
        &dir.path().join("test-00000-of-00001.parquet"),
        None,
        &rows(&[9, 10, 11]),
    );
    let task = load(dir.path()).unwrap();
    assert_eq!(task.classes, ["0", "1", "2"]);
    assert_eq!(
        [&task.train, &task.valid, &task.test].map(greys),
        [vec![0, 1, 2, 3, 4], vec![6, 7], vec![9, 10, 11]]
    );
    assert_eq!(task.test.labels, [0, 1, 2]);
}

#[test]
fn pictures_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let train = dir.path().join("data/train-00000-of-00001.parquet");
    let note = r#"{"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}}"#;
    let rows = |label: i32| vec![(png(1), 0), (png(2), 1), (png(3), label)];
    pictures(&train, Some(note), &rows(2));
    says(
        load(dir.path()),
        &["train-00000-of-00001.parquet", "row 3", "'label' is 2", "0 to 1"],
    );
    pictures(&train, None, &rows(-1));
    says(load(dir.path()), &["row 3", "'label' is -1"]);
    pictures(&train, None, &rows(200_000));
    says(load(dir.path()), &["row 3", "'label' is 200000"]);
    pictures(&train, None, &[(png(1), 0), (png(2), 0)]);
    says(load(dir.path()), &["train-00000-of-00001.parquet", "two classes"]);
    let elsewhere = r#"{"info": {"features": {"picture": {"_type": "Image"}}}}"#;
    pictures(&train, Some(elsewhere), &rows(1));
    says(load(dir.path()), &["no column 'picture'", "label, image"]);
    std::fs::copy(fixture("parquet/zstd.parquet"), &train).unwrap();
    says(load(dir.path()), &["train-00000-of-00001.parquet", "ZSTD", "snappy"]);
    let rows: Vec<_> = (0..8).map(|i| (b"no picture".to_vec(), i % 2)).collect();
    pictures(&train, None, &rows);
    let task = load(dir.path()).unwrap();
    says(
        task.train.rgb(0),
        &["train-00000-of-00001.parquet, row", "no JPEG or PNG"],
    );
}

#[test]
fn language_data_in_its_three_shapes() {
    let read = |name: &str| example::read(&[fixture(&format!("parquet/{name}.parquet"))], &Fields::default());
    let chats = read("chat").unwrap().examples;
    let Example::Chat(messages) = &chats[1] else {
        panic!("{chats:?}")
    };
    let said: Vec<_> = messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
    assert_eq!(said, [("system", "be brief"), ("user", "é?"), ("assistant", "è!")]);
    let sums = read("sums").unwrap().examples;
    assert!(matches!(&sums[1], Example::Instruction { instruction, input, output }
        if instruction == "2 + 2" && input.is_empty() && output == "4"));
    says(
        read("zstd"),
        &["zstd.parquet", "ZSTD", "not built in", "compression='snappy'"],
    );
    let renamed = Fields::renamed(&["instruction=question".into()]).unwrap();
    let asked = example::read(&[fixture("parquet/sums.parquet")], &renamed);
    says(
        asked,
        &["sums.parquet, item 1", "instruction, input, output, answer", "--field"],
    );
}

#[test]
fn test_questions_may_be_parquet_too() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("boolq");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(fixture("parquet/sums.parquet"), folder.join("test.parquet")).unwrap();
    says(
        commonsense::test(dir.path(), commonsense::SETS[0]),
        &["test.parquet, item 1", "field 'answer'"],
    );
}

#[test]
fn a_damaged_file_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.parquet");
    let try_bytes = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        records::read(&path).map(drop).map_err(|e| e.to_string())
    };
    says(try_bytes(b"{\"no\": \"parquet\"}"), &["damaged.parquet"]);
    says(try_bytes(b""), &["damaged.parquet"]);
    for name in ["chat", "sums"] {
        let whole = std::fs::read(fixture(&format!("parquet/{name}.parquet"))).unwrap();
        for cut in (0..whole.len()).step_by(37) {
            says(try_bytes(&whole[..cut]), &["damaged.parquet"]);
        }
        // Any byte wrong: another value or an error.
        for at in 0..whole.len() {
            let mut wrong = whole.clone();
            wrong[at] ^= 0x55;
            let _ = try_bytes(&wrong);
        }
    }
}
