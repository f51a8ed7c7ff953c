//! Parquet files: those of pyarrow, polars, DuckDB and Hugging Face's datasets (fixtures/make_parquet.py and
//! make_parquet_codecs.py), and of the crate's own writer.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use datasets::language::example::{self, Fields};
use datasets::language::{Example, commonsense, records};
use datasets::parquet_images::Columns;
use datasets::texts::{self, TextFields};
use datasets::{Resize, Task, root};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::{fixture, says};

/// The bytes of a PNG of 3 times 2 pixels of one grey.
fn png(value: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_pixel(3, 2, image::Rgb([value; 3]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Writes images with labels; `note` is the file's `huggingface` note.
fn images(path: &Path, note: Option<&str>, rows: &[(Vec<u8>, i32)]) {
    let schema = "message schema { REQUIRED INT32 label; REQUIRED GROUP image { REQUIRED BINARY bytes; } }";
    let notes = note.map(|note| vec![KeyValue::new("huggingface".into(), note.to_string())]);
    let properties = WriterProperties::builder().set_key_value_metadata(notes).build();
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

/// Writes a column of labels and one of bytes.
fn columns<T: DataType>(path: &Path, schema: &str, note: Option<&str>, labels: &[T::T], bytes: &[Vec<u8>]) {
    let notes = note.map(|note| vec![KeyValue::new("huggingface".into(), note.to_string())]);
    let properties = WriterProperties::builder().set_key_value_metadata(notes).build();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(labels, None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let bytes: Vec<ByteArray> = bytes.iter().map(|bytes| bytes.clone().into()).collect();
    column.typed::<ByteArrayType>().write_batch(&bytes, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

fn load(path: &Path) -> Result<Task, datasets::DataError> {
    let names = root::tasks(path)?;
    root::task(path, &names[0], 2, Resize::default())
}

/// The grey of every image, as bytes.
fn greys(images: &datasets::Images) -> Vec<u8> {
    let grey = |index: usize| images.rgb(index).unwrap().get_pixel(0, 0)[0];
    (0..images.len()).map(grey).collect()
}

#[test]
fn images_of_hugging_face_s_datasets() {
    let task = load(&fixture("parquet/images")).unwrap();
    assert_eq!(
        (task.name.as_str(), task.classes.clone()),
        ("images", vec!["even".into(), "odd".into()])
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
fn images_without_a_note_and_with_every_part() {
    let dir = tempfile::tempdir().unwrap();
    let rows = |values: &[u8]| {
        values
            .iter()
            .map(|value| (png(*value), i32::from(value % 3)))
            .collect::<Vec<_>>()
    };
    images(&dir.path().join("train.parquet"), None, &rows(&[0, 1, 2, 3, 4]));
    images(
        &dir.path().join("validation-00000-of-00001.parquet"),
        None,
        &rows(&[6, 7]),
    );
    images(
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
fn images_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let train = dir.path().join("data/train-00000-of-00001.parquet");
    let note = r#"{"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}}"#;
    let rows = |label: i32| vec![(png(1), 0), (png(2), 1), (png(3), label)];
    images(&train, Some(note), &rows(2));
    says(
        load(dir.path()),
        &["train-00000-of-00001.parquet", "row 3", "'label' is 2", "0 to 1"],
    );
    images(&train, None, &rows(-1));
    says(load(dir.path()), &["row 3", "'label' is -1"]);
    images(&train, None, &rows(200_000));
    says(load(dir.path()), &["row 3", "'label' is 200000"]);
    images(&train, None, &[(png(1), 0), (png(2), 0)]);
    says(load(dir.path()), &["train-00000-of-00001.parquet", "two classes"]);
    let elsewhere = r#"{"info": {"features": {"photo": {"_type": "Image"}}}}"#;
    images(&train, Some(elsewhere), &rows(1));
    says(load(dir.path()), &["no column 'photo'", "label, image"]);
    std::fs::copy(fixture("parquet/zstd.parquet"), &train).unwrap();
    says(
        load(dir.path()),
        &[
            "train-00000-of-00001.parquet",
            "no column 'image'",
            "instruction, input, output, answer",
        ],
    );
    let rows: Vec<_> = (0..8).map(|i| (b"no image".to_vec(), i % 2)).collect();
    images(&train, None, &rows);
    let task = load(dir.path()).unwrap();
    says(
        task.train.rgb(0),
        &["train-00000-of-00001.parquet, row", "no image of a kind that is read"],
    );
}

#[test]
fn labels_may_be_names_or_truth_values() {
    let dir = tempfile::tempdir().unwrap();
    let named = |name: &str, labels: &[&str]| {
        let schema = "message schema { REQUIRED BINARY label (UTF8); REQUIRED GROUP image { REQUIRED BINARY bytes; } }";
        let texts: Vec<ByteArray> = labels.iter().map(|label| ByteArray::from(*label)).collect();
        let files: Vec<_> = (0..labels.len()).map(|i| png(i as u8)).collect();
        columns::<ByteArrayType>(&dir.path().join(name), schema, None, &texts, &files);
    };
    named("train.parquet", &["dog", "cat", "dog", "cow", "cat"]);
    named("validation.parquet", &["cow"]);
    named("test.parquet", &["cat", "dog"]);
    let task = load(dir.path()).unwrap();
    assert_eq!(task.classes, ["cat", "cow", "dog"]);
    assert_eq!(task.train.labels, [2, 0, 2, 1, 0]);
    assert_eq!((task.valid.labels, task.test.labels), (vec![1], vec![0, 2]));
    named("test.parquet", &["cat", "ant"]);
    says(load(dir.path()), &["test.parquet", "row 2: field 'label' is 'ant'"]);
    images(&dir.path().join("test.parquet"), None, &[(png(1), 0), (png(2), 1)]);
    says(
        load(dir.path()),
        &["test.parquet", "row 1: field 'label' is a number in some"],
    );
    for part in ["validation", "test"] {
        std::fs::remove_file(dir.path().join(format!("{part}.parquet"))).unwrap();
    }
    let schema = "message schema { REQUIRED BOOLEAN label; REQUIRED GROUP image { REQUIRED BINARY bytes; } }";
    let (labels, files): (Vec<bool>, Vec<_>) = (0..8).map(|i| (i % 2 == 0, png(i))).unzip();
    columns::<BoolType>(&dir.path().join("train.parquet"), schema, None, &labels, &files);
    let task = load(dir.path()).unwrap();
    assert_eq!(
        (task.classes, task.test.labels),
        (vec!["false".into(), "true".into()], vec![0, 1])
    );
}

#[test]
fn parts_may_be_folders_of_numbered_files() {
    for base in ["", "default"] {
        let dir = tempfile::tempdir().unwrap();
        let add = |name: &str, values: &[u8]| {
            let rows: Vec<_> = values.iter().map(|value| (png(*value), i32::from(value % 2))).collect();
            images(&dir.path().join(base).join(name), None, &rows);
        };
        add("train/0000.parquet", &[0, 1]);
        add("train/0001.parquet", &[2, 3]);
        add("train/metadata.parquet", &[100, 101]);
        add("validation/0000.parquet", &[4, 5]);
        add("test/0000.parquet", &[6, 7]);
        add("unsupervised/0000.parquet", &[8, 9]);
        let task = load(dir.path()).unwrap();
        assert_eq!(
            [&task.train, &task.valid, &task.test].map(greys),
            [vec![0, 1, 2, 3], vec![4, 5], vec![6, 7]]
        );
        assert!(task.notes[0].contains("unsupervised"), "{:?}", task.notes);
    }
}

#[test]
fn the_classes_of_texts_are_those_of_the_note() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.parquet");
    let note = r#"{"info": {"features": {"label": {"names": ["pos", "neg", "mixed"], "_type": "ClassLabel"}}}}"#;
    let schema = "message schema { REQUIRED INT32 label; REQUIRED BINARY text (UTF8); }";
    let words = [b"good".to_vec(), b"bad".to_vec(), b"unknown".to_vec()];
    columns::<Int32Type>(&path, schema, Some(note), &[0, 1, -1], &words);
    let fields = TextFields::parse("text", Some("label")).unwrap();
    let read = texts::read_labelled(&path, &fields).unwrap();
    assert_eq!((read.items.len(), read.left_out), (2, 1));
    let classes = texts::class_names(&read).unwrap();
    assert_eq!(classes, ["pos", "neg", "mixed"]);
    let labels = |classes: &[String]| -> Vec<_> {
        let items = texts::with_classes(&read, classes).unwrap();
        items.into_iter().map(|item| item.label).collect()
    };
    assert_eq!(labels(&classes), [Some(0), Some(1)]);
    // An adapter that was trained on the numbers.
    assert_eq!(labels(&["1".into(), "0".into()]), [Some(1), Some(0)]);
    columns::<Int32Type>(&path, schema, Some("[{\"info\": 1}]"), &[0, 1, -1], &words);
    let read = texts::read_labelled(&path, &fields).unwrap();
    assert_eq!(texts::class_names(&read).unwrap(), ["-1", "0", "1"]);
}

#[test]
fn missing_files_of_a_part_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<_> = (0..12_u8).map(|i| (png(i), i32::from(i % 2))).collect();
    let add = |name: &str| images(&dir.path().join(name), None, &rows);
    add("train-00000-of-00003.parquet");
    add("train-00002-of-00003.parquet");
    says(
        load(dir.path()),
        &[
            "train-00000-of-00003.parquet",
            "one of 3 files",
            "2 are there",
            "number 00001 is missing",
        ],
    );
    add("train-00001-of-00003-a09b74b3ef9c3b56.parquet");
    assert_eq!(load(dir.path()).unwrap().train.len(), 24);
    add("test-00000-of-00002.parquet");
    says(
        load(dir.path()),
        &["test-00000-of-00002.parquet", "number 00001 is missing"],
    );
    std::fs::remove_file(dir.path().join("test-00000-of-00002.parquet")).unwrap();
    add("train-00000-of-00001.parquet");
    says(load(dir.path()), &["one version", "train-00000-of-00001.parquet"]);
    std::fs::remove_file(dir.path().join("train-00000-of-00001.parquet")).unwrap();
    add("train.parquet");
    says(load(dir.path()), &["one of 3 files, and 4 are there"]);
    std::fs::remove_file(dir.path().join("train.parquet")).unwrap();
    add("train-00000-of-99999999999999.parquet");
    says(load(dir.path()), &["one version"]);
    std::fs::remove_file(dir.path().join("train-00000-of-99999999999999.parquet")).unwrap();
    add("unsupervised-00000-of-00001.parquet");
    let notes = load(dir.path()).unwrap().notes;
    assert!(
        notes[0].contains("1 parquet files of other parts") && notes[0].contains("unsupervised"),
        "{notes:?}"
    );
}

#[test]
fn parts_that_name_other_classes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let note = |names: &str| {
        format!(r#"{{"info": {{"features": {{"label": {{"names": {names}, "_type": "ClassLabel"}}}}}}}}"#)
    };
    let rows: Vec<_> = (0..12_u8).map(|i| (png(i), i32::from(i % 2))).collect();
    images(&dir.path().join("train.parquet"), Some(&note(r#"["a", "b"]"#)), &rows);
    for (names, part) in [
        (r#"["b", "a"]"#, "class 0 is 'b' in it and 'a' in the files before"),
        (
            r#"["a", "b", "c"]"#,
            "class 2 is 'c' in it and none in the files before",
        ),
    ] {
        images(&dir.path().join("test.parquet"), Some(&note(names)), &rows);
        says(load(dir.path()), &["test.parquet", part]);
    }
    images(&dir.path().join("test.parquet"), Some(&note(r#"["a", "b"]"#)), &rows);
    assert_eq!(load(dir.path()).unwrap().classes, ["a", "b"]);
    images(&dir.path().join("test.parquet"), None, &rows);
    assert_eq!(load(dir.path()).unwrap().classes, ["a", "b"]);
}

#[test]
fn the_columns_may_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let note = r#"{"info": {"features": {"image": {"_type": "Image"}, "fine": {"_type": "ClassLabel"},
        "label": {"_type": "ClassLabel"}}}}"#;
    let rows: Vec<_> = (0..12_u8).map(|i| (png(i), i32::from(i % 2))).collect();
    images(&dir.path().join("train.parquet"), Some(note), &rows);
    says(load(dir.path()), &["no column 'fine'", "label, image", "--label-field"]);
    let with = |image: Option<&str>, label: Option<&str>| {
        let columns = Columns {
            image: image.map(String::from),
            label: label.map(String::from),
        };
        root::task_with(dir.path(), "t", 2, Resize::default(), &columns)
    };
    assert_eq!(with(None, Some("label")).unwrap().classes, ["0", "1"]);
    says(
        with(Some("photo"), Some("label")),
        &["no column 'photo'", "--image-field"],
    );
    let several = note.replace("\"fine\"", "\"label\"").replace(
        "\"label\": {\"_type\": \"ClassLabel\"}}",
        "\"other\": {\"_type\": \"ClassLabel\"}}",
    );
    images(&dir.path().join("train.parquet"), Some(&several), &rows);
    let notes = load(dir.path()).unwrap().notes;
    assert_eq!(
        notes,
        ["of the columns label, other the first is read; --label-field chooses another"]
    );
    std::fs::remove_file(dir.path().join("train.parquet")).unwrap();
    for class in ["a", "b"] {
        for i in 0..4 {
            std::fs::create_dir_all(dir.path().join(class)).unwrap();
            std::fs::write(dir.path().join(class).join(format!("{i}.png")), png(i)).unwrap();
        }
    }
    says(with(None, Some("label")), &["--label-field", "leave them out"]);
}

#[test]
fn every_compression_and_encoding_gives_the_same_rows() {
    let names = [
        "none", "none-v2", "snappy", "gzip", "zstd", "zstd-v2", "lz4", "brotli", "delta-v1", "delta-v2", "polars",
        "duckdb",
    ];
    let mut first = None;
    for name in names {
        let path = fixture(&format!("parquet/codecs/{name}.parquet"));
        let rows: Vec<_> = records::read(&path)
            .unwrap()
            .into_iter()
            .map(|row| row.fields)
            .collect();
        assert_eq!(rows.len(), 200, "{name}");
        assert_eq!(rows[199]["text"], "a line of text, number 66 of them", "{name}");
        assert!(rows[196]["note"].is_null() && rows[199]["note"] == "éééé", "{name}");
        assert_eq!(rows[197]["parts"], serde_json::json!(["part 0", "part 1"]), "{name}");
        assert_eq!(*first.get_or_insert_with(|| rows.clone()), rows, "{name}");
        let fields = TextFields::parse("text", Some("label")).unwrap();
        let texts = texts::read_labelled(&path, &fields).unwrap();
        assert_eq!(texts::class_names(&texts).unwrap(), ["bad", "good", "mixed"], "{name}");
        assert_eq!((texts.items.len(), texts.items[7].label.as_deref()), (200, Some("bad")));
        let other = TextFields::parse("question", Some("label")).unwrap();
        says(
            texts::read_labelled(&path, &other),
            &["item 1", "no field 'question'; found: id, text, label, note, parts"],
        );
    }
}

#[test]
fn images_in_the_usual_compressions() {
    let task = load(&fixture("parquet/codecs/images")).unwrap();
    assert_eq!(task.classes, ["even", "odd"]);
    assert_eq!(
        [&task.train, &task.valid, &task.test].map(greys),
        [(0..12).collect::<Vec<u8>>(), vec![0, 1], vec![0, 1, 2]]
    );
    assert_eq!(task.test.labels, [0, 1, 0]);
}

#[test]
fn language_data_in_its_three_shapes() {
    let read = |name: &str| example::read(&[fixture(&format!("parquet/{name}.parquet"))], &Fields::default());
    let chats = read("chat").unwrap().examples;
    let Example::Chat(chat) = &chats[1] else {
        panic!("{chats:?}")
    };
    let said: Vec<_> = chat
        .messages
        .iter()
        .map(|m| (m.role.as_str(), m.content.as_str()))
        .collect();
    assert_eq!(said, [("system", "be brief"), ("user", "é?"), ("assistant", "è!")]);
    let sums = read("sums").unwrap().examples;
    assert!(matches!(&sums[1], Example::Instruction { instruction, input, output }
        if instruction == "2 + 2" && input.is_empty() && output == "4"));
    assert_eq!(read("zstd").unwrap().examples, sums);
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
    for name in ["chat", "sums", "zstd"] {
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
