//! Images with a table of their labels, as Hugging Face's ImageFolder has them.

use std::path::Path;

use datasets::parquet_images::Columns;
use datasets::{DataError, Images, Resize, Task, root};

use crate::says;

fn save(path: &Path, grey: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(3, 2, image::Rgb([grey; 3]))
        .save(path)
        .unwrap();
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn load(path: &Path) -> Result<Task, DataError> {
    with(path, None, None)
}

fn with(path: &Path, image: Option<&str>, label: Option<&str>) -> Result<Task, DataError> {
    let columns = Columns {
        image: image.map(String::from),
        label: label.map(String::from),
    };
    let names = root::tasks(path)?;
    root::task_with(path, &names[0], 2, Resize::default(), &columns)
}

/// The grey of every image and its label.
fn greys(images: &Images) -> Vec<(u8, usize)> {
    let grey = |index: usize| images.rgb(index).unwrap().get_pixel(0, 0)[0];
    (0..images.len())
        .map(|index| (grey(index), images.labels[index]))
        .collect()
}

#[test]
fn a_table_of_every_kind_labels_the_images_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("pets");
    for i in 0..10 {
        save(&data.join(format!("images/{i}.png")), i);
    }
    save(&data.join("more/loose.png"), 100);
    let class = |i: usize| ["dog", "cat"][i % 2];
    let csv: String = (0..10).map(|i| format!("images/{i}.png,x,{}\n", class(i))).collect();
    let lines = |i| format!("{{\"file_name\": \"./images/{i}.png\", \"label\": \"{}\"}}\n", class(i));
    let jsonl: String = (0..10).map(lines).collect();
    let mut first = None;
    for (name, text) in [
        ("metadata.csv", format!("\u{feff}file_name,other,label\r\n{csv}")),
        ("metadata.jsonl", jsonl),
    ] {
        write(&data.join(name), &text);
        let task = load(&data).unwrap();
        std::fs::remove_file(data.join(name)).unwrap();
        assert_eq!(
            (task.name.as_str(), task.classes.clone()),
            ("pets", vec!["cat".into(), "dog".into()])
        );
        assert_eq!(
            (task.train.len(), task.valid.len(), task.test.len()),
            (6, 2, 2),
            "{name}"
        );
        for part in [&task.train, &task.valid, &task.test] {
            assert!(
                greys(part)
                    .iter()
                    .all(|(grey, label)| usize::from(grey % 2 == 0) == *label),
                "{name}"
            );
        }
        assert_eq!(task.notes.len(), 2, "{:?}", task.notes);
        assert!(task.notes[1].contains("not the names of the folders"));
        assert!(
            task.notes[0].contains("1 image without a row in metadata left out") && task.notes[0].contains("loose.png")
        );
        let images: Vec<_> = [&task.train, &task.valid, &task.test].map(greys).concat();
        assert_eq!(*first.get_or_insert_with(|| images.clone()), images);
    }
}

#[test]
fn parts_have_tables_of_their_own_or_one_above_them() {
    let dir = tempfile::tempdir().unwrap();
    let parts = [("train", 0..6), ("validation", 6..8), ("test", 8..11)];
    let mut above = "file_name,label\n".to_string();
    for (part, range) in parts.clone() {
        // Folders that are no classes.
        let mut table = "file_name,label\n".to_string();
        for i in range {
            save(&dir.path().join(format!("{part}/{}/{i}.png", i / 4)), i);
            table += &format!("{}\\{i}.png,{}\n", i / 4, 10 - i % 2 * 8);
            above += &format!("{part}/{}/{i}.png,{}\n", i / 4, 10 - i % 2 * 8);
        }
        write(&dir.path().join(part).join("metadata.csv"), &table);
    }
    let check = |task: Task| {
        // Numbers in their order.
        assert_eq!(task.classes, ["2", "10"]);
        let expected = parts
            .clone()
            .map(|(_, range)| range.map(|i| (i, usize::from(i % 2 == 0))).collect::<Vec<_>>());
        let mut found = [&task.train, &task.valid, &task.test].map(greys);
        found.iter_mut().for_each(|part| part.sort_unstable());
        assert_eq!(found, expected);
        assert_eq!(task.notes, [""; 0]);
    };
    check(load(dir.path()).unwrap());
    for (part, _) in parts.clone() {
        std::fs::remove_file(dir.path().join(part).join("metadata.csv")).unwrap();
    }
    write(&dir.path().join("metadata.csv"), &above);
    // The folders in `train` could be classes, so that the table is named.
    check(with(dir.path(), None, Some("label")).unwrap());
    let test = dir.path().join("test/metadata.csv");
    write(
        &dir.path().join("metadata.csv"),
        "file_name,label\ntrain/0/0.png,2\ntrain/0/1.png,10\n",
    );
    write(&test, "file_name,label\n2/8.png,3\n");
    says(
        load(dir.path()),
        &["test/metadata.csv:2: label '3' is a class that the training part lacks"],
    );
    std::fs::rename(dir.path().join("train"), dir.path().join("first")).unwrap();
    says(load(dir.path()), &["no folder in it is named train"]);
}

#[test]
fn the_columns_of_a_table_may_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = "id,left_file_name,right_file_name,kind\n".to_string();
    for i in 0..8 {
        save(&dir.path().join(format!("l{i}.png")), i);
        save(&dir.path().join(format!("r{i}.png")), 100 + i);
        table += &format!("{i},l{i}.png,r{i}.png,{}\n", i % 2);
    }
    write(&dir.path().join("metadata.csv"), &table);
    says(
        load(dir.path()),
        &[
            "metadata.csv",
            "no column 'label'; found: id, left_file_name, right_file_name, kind",
            "--label-field",
        ],
    );
    let task = with(dir.path(), None, Some("kind")).unwrap();
    assert!(greys(&task.train).iter().all(|(grey, _)| *grey < 100));
    assert!(task.notes[0].contains("left_file_name, right_file_name the first is read; --image-field"));
    for name in ["right", "right_file_name"] {
        let task = with(dir.path(), Some(name), Some("kind")).unwrap();
        assert!(
            greys(&task.train)
                .iter()
                .all(|(grey, label)| *grey >= 100 && usize::from(grey % 2) == *label)
        );
        assert!(task.notes[0].contains("8 images without a row"), "{:?}", task.notes);
    }
    says(
        with(dir.path(), Some("middle"), Some("kind")),
        &["no column 'middle'", "left_file_name", "--image-field"],
    );
    write(&dir.path().join("metadata.csv"), "name,label\nl0.png,a\n");
    says(
        load(dir.path()),
        &["no column 'file_name'; found: name, label", "--image-field"],
    );
}

#[test]
fn rows_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..8 {
        save(&dir.path().join(format!("{i}.png")), i);
    }
    let whole: String = (0..8).map(|i| format!("{i}.png,{}\n", ["a", "b"][i % 2])).collect();
    let table = |more: &str| {
        write(
            &dir.path().join("metadata.csv"),
            &format!("file_name,label\n{whole}{more}"),
        );
        load(dir.path())
    };
    assert_eq!(table("").unwrap().train.len(), 4);
    says(
        table("8.png,a\n9.png,a\n"),
        &["metadata.csv:10: '8.png' is not there, nor is the file of 1 more row"],
    );
    for path in ["../up.png", "/etc/passwd", "..\\up.png", "a/../../up.png"] {
        says(
            table(&format!("{path},a\n")),
            &["metadata.csv:10: the path", "leads out of its folder"],
        );
    }
    says(table("./7.png,b\n"), &["metadata.csv:10", "7.png' already has a row"]);
    let task = table("8.png,\n,a\n").unwrap();
    assert!(
        task.notes[0].starts_with("2 rows are left out, the first: "),
        "{:?}",
        task.notes
    );
    save(&dir.path().join("8.png"), 8);
    says(table("8.png,c\n"), &["class 'c' has too few images"]);
    write(
        &dir.path().join("metadata.csv"),
        "file_name,label\n0.png,a\n1.png,a\n2.png,a\n3.png,a\n",
    );
    says(load(dir.path()), &["its tables name 1 classes"]);
    write(&dir.path().join("metadata.csv"), "file_name,label\n");
    says(load(dir.path()), &["metadata.csv holds no row"]);
}

#[test]
fn class_folders_beside_a_table_keep_their_names_unless_its_labels_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (mut table, mut whole) = ("file_name,kind\n".to_string(), "file_name,label\n".to_string());
    for i in 0..12 {
        let class = ["x", "y"][i % 2];
        save(&dir.path().join(format!("{class}/{i}.png")), i as u8);
        table += &format!("{class}/{i}.png,{}\n", ["a", "b", "c"][i % 3]);
        whole += &format!("{class}/{i}.png,{}\n", ["no", "yes"][i % 2]);
    }
    let before = load(dir.path()).unwrap();
    write(&dir.path().join("metadata.csv"), &table);
    let task = load(dir.path()).unwrap();
    assert_eq!((&task.classes, &task.train), (&before.classes, &before.train));
    assert!(task.notes[0].contains("metadata.csv is not read") && task.notes[0].contains("--label-field"));
    let task = with(dir.path(), None, Some("kind")).unwrap();
    assert_eq!((task.classes.len(), task.notes.len()), (3, 0));
    // Other names for the same classes need no note, other classes do.
    write(&dir.path().join("metadata.csv"), &whole);
    assert_eq!(load(dir.path()).unwrap(), before);
    write(&dir.path().join("metadata.csv"), &table.replace("kind", "label"));
    let task = load(dir.path()).unwrap();
    assert_eq!((&task.classes, &task.train), (&before.classes, &before.train));
    assert!(task.notes[0].contains("--label-field"), "{:?}", task.notes);
    assert_eq!(with(dir.path(), None, Some("label")).unwrap().classes, ["a", "b", "c"]);
}

#[test]
fn what_lies_beside_class_folders_does_not_hide_their_faults() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..12 {
        save(
            &dir.path().join(format!("train/{}/{i}.png", ["x", "y"][i % 2])),
            i as u8,
        );
    }
    std::fs::create_dir(dir.path().join("extras")).unwrap();
    // A table without labels.
    write(&dir.path().join("train/metadata.csv"), "file_name,text\nx/0.png,a\n");
    let task = load(&dir.path().join("train")).unwrap();
    assert_eq!(task.classes, ["x", "y"]);

    let dir = tempfile::tempdir().unwrap();
    for (class, count) in [("x", 6), ("y", 2)] {
        for i in 0..count {
            save(&dir.path().join(format!("{class}/{i}.png")), i as u8);
        }
    }
    write(&dir.path().join("images.tar"), "");
    says(load(dir.path()), &["y", "too few images"]);
}

#[test]
fn what_is_not_read_says_how_to_convert_it() {
    for (file, parts) in [
        ("data-00000-of-00001.arrow", "load_from_disk"),
        ("train/data-00000-of-00001.arrow", "load_from_disk"),
        ("train-0000.tar", "webdataset"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join(file), "");
        says(load(dir.path()), &[parts, "to_parquet"]);
    }
}
