//! Lists and folders of a user's own.

use std::path::Path;

use datasets::{ImageSource, Images, Resize, Task, folder, root};
use indicatif::ProgressBar;

use crate::says;

fn save(path: &Path, value: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(3, 2, image::Rgb([value; 3]))
        .save(path)
        .unwrap();
}

fn load(path: &Path) -> Result<Task, datasets::DataError> {
    let names = root::tasks(path)?;
    root::task(path, &names[0], 4, Resize::default())
}

/// A task of lists of three lines each.
fn lists(path: &Path) {
    let folder = path.join("t");
    for list in ["train800", "val200", "test"] {
        let mut lines = String::new();
        for i in 0..3_u8 {
            save(&folder.join(format!("{list}{i}.png")), i);
            lines += &format!("{list}{i}.png {}\n", i % 2);
        }
        std::fs::write(folder.join(format!("{list}.txt")), lines).unwrap();
    }
}

#[test]
fn a_folder_with_lists_of_its_own_is_one_task() {
    let dir = tempfile::tempdir().unwrap();
    lists(dir.path());
    let folder = dir.path().join("t");
    // Not its image folders: lists go before them.
    save(&folder.join("images/a/1.png"), 1);
    let task = load(&folder).unwrap();
    assert_eq!((task.name.as_str(), task.train.len()), ("t", 3));
}

#[test]
fn bad_lists_are_named() {
    let dir = tempfile::tempdir().unwrap();
    lists(dir.path());
    assert_eq!(load(dir.path()).unwrap().test.labels, [0, 1, 0]);
    // A test image that is trained on is allowed, and counted.
    assert_eq!(load(dir.path()).unwrap().trained_and_tested(), 0);
    let test = dir.path().join("t/test.txt");
    let whole = std::fs::read_to_string(&test).unwrap();
    std::fs::write(&test, format!("{whole}train8001.png 1\n")).unwrap();
    assert_eq!(load(dir.path()).unwrap().trained_and_tested(), 1);
    std::fs::write(&test, whole).unwrap();
    let with = |list: &str, text: &str, parts: &[&str]| {
        let path = dir.path().join("t").join(list);
        let whole = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(&path, text).unwrap();
        says(load(dir.path()), parts);
        std::fs::write(&path, whole).unwrap();
    };
    with("val200.txt", "\n", &["val200.txt is empty", "path label"]);
    with(
        "test.txt",
        "test0.png 0\ntest1.png 1\ntest0.png 0\n",
        &["test.txt, line 3", "'test0.png'", "line 1"],
    );
    with(
        "train800.txt",
        "a.png 0\na.png 1\n",
        &["train800.txt, line 2", "line 1"],
    );
    with(
        "test.txt",
        "test0.png 2\n",
        &["test.txt, line 1", "label 2 is out of range", "2 classes"],
    );
    with("train800.txt", "a.png 4000000\n", &["4000000"]);
    with("classes.txt", "one\n", &["label 1 is out of range", "1 classes"]);
    with("classes.txt", "\n", &["classes.txt", "one class name per line"]);
    std::fs::remove_file(dir.path().join("t/classes.txt")).unwrap();
    std::fs::remove_file(dir.path().join("t/train800.txt")).unwrap();
    std::fs::copy(dir.path().join("t/val200.txt"), dir.path().join("t/train800val200.txt")).unwrap();
    says(load(dir.path()), &["train800val200.txt", "3 lines"]);
}

#[test]
fn classes_are_limited_and_named_once() {
    let dir = tempfile::tempdir().unwrap();
    lists(dir.path());
    let path = dir.path().join("t/classes.txt");
    let names: String = (0..=100_000).map(|class| format!("c{class}\n")).collect();
    std::fs::write(&path, &names).unwrap();
    let parts = ["classes.txt", "100001 classes; a task has at most 100000"];
    says(load(dir.path()), &parts);
    let (_, most) = names.split_once('\n').unwrap();
    std::fs::write(&path, most).unwrap();
    assert_eq!(load(dir.path()).unwrap().classes.len(), 100_000);
    std::fs::write(&path, "one\ntwo\nthree\ntwo\n").unwrap();
    says(load(dir.path()), &["classes.txt", "class 'two' has two lines"]);
}

#[cfg(unix)]
#[test]
fn a_list_is_no_pipe() {
    let dir = tempfile::tempdir().unwrap();
    lists(dir.path());
    for list in ["test.txt", "classes.txt"] {
        let path = dir.path().join("t").join(list);
        let _ = std::fs::remove_file(&path);
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        says(load(dir.path()), &[list, "a pipe or a device"]);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn images_beyond_the_limit_are_read_when_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let mut images = Images::new(2, Resize::default());
    for i in 0..200_u8 {
        let path = dir.path().join(format!("{i}.png"));
        save(&path, i);
        images.push(ImageSource::File(path.into()), 0);
    }
    let mut kept = images.clone();
    // 18 bytes per image.
    kept.keep(1000, &ProgressBar::hidden(), &|| true).unwrap();
    assert_eq!((images.kept_bytes(), kept.kept_bytes()), (0, 55 * 18));
    for index in 0..200 {
        assert_eq!(kept.pixels(index).unwrap(), [index as f32; 12]);
    }
    assert_eq!(kept.joined(&images).len(), 400);
    // A missing file is found when the set is read, also beyond the limit.
    std::fs::remove_file(dir.path().join("150.png")).unwrap();
    says(images.keep(1000, &ProgressBar::hidden(), &|| true), &["150.png"]);
    says(images.keep(1000, &ProgressBar::hidden(), &|| false), &["was stopped"]);
    says(kept.pixels(150), &["150.png"]);
}

#[test]
fn a_folder_a_class_is_split_the_same_way_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("pets");
    for (class, count) in [("cat", 20), ("dog", 10)] {
        for i in 0..count {
            save(&data.join(class).join(format!("{i}.png")), i);
        }
    }
    let task = load(&data).unwrap();
    assert_eq!((task.name.as_str(), task.group.as_str()), ("pets", "other"));
    assert_eq!(task.classes, ["cat", "dog"]);
    assert_eq!((task.train.len(), task.valid.len(), task.test.len()), (21, 3, 6));
    assert_eq!(task.test.labels, [0, 0, 0, 0, 1, 1]);
    assert_eq!(load(&data).unwrap(), task);
    let path = |images: &Images, i: usize| images.sources[i].path().unwrap().to_path_buf();
    let mut all: Vec<_> = [&task.train, &task.valid, &task.test]
        .iter()
        .flat_map(|images| (0..images.len()).map(|i| path(images, i)))
        .collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 30);
    assert!(folder::tasks(&data).unwrap().is_empty());
}

#[test]
fn given_parts_are_kept_and_missing_ones_taken_from_train() {
    let dir = tempfile::tempdir().unwrap();
    let add = |part: &str, class: &str, count: u8| {
        for i in 0..count {
            save(&dir.path().join(part).join(class).join(format!("{i}.jpg")), i);
        }
    };
    add("train", "a", 10);
    add("train", "b", 10);
    add("test", "a", 3);
    add("test", "b", 4);
    let task = load(dir.path()).unwrap();
    assert_eq!((task.train.len(), task.valid.len(), task.test.len()), (18, 2, 7));
    add("val", "a", 1);
    add("val", "b", 1);
    let task = load(dir.path()).unwrap();
    assert_eq!((task.train.len(), task.valid.len(), task.test.len()), (20, 2, 7));
    add("test", "c", 1);
    says(load(dir.path()), &["test/c", "no folder under train"]);
}

#[test]
fn folders_that_cannot_be_a_task_are_named() {
    let dir = tempfile::tempdir().unwrap();
    says(load(&dir.path().join("none")), &["none"]);
    says(load(dir.path()), &["no task folder in it", "per class"]);
    save(&dir.path().join("one/a.png"), 1);
    says(load(dir.path()), &["1 class folder"]);
    save(&dir.path().join("two/a.png"), 1);
    says(load(dir.path()), &["one", "3 or more"]);
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    says(load(dir.path()), &["empty", "no .jpg"]);
    // Notes and hidden files are passed over, images of another kind are not.
    for name in ["notes.txt", ".hidden.png"] {
        std::fs::write(dir.path().join("empty").join(name), "").unwrap();
    }
    says(load(dir.path()), &["empty", "no .jpg"]);
    std::fs::write(dir.path().join("empty/b.HEIC"), "").unwrap();
    says(
        load(dir.path()),
        &["empty/b.HEIC", "not read", "convert it to .jpg or .png"],
    );
}

#[test]
fn lists_with_a_byte_order_mark_and_class_names() {
    let dir = tempfile::tempdir().unwrap();
    lists(dir.path());
    let list = |name: &str, text: &str| std::fs::write(dir.path().join("t").join(name), text).unwrap();
    list("train800.txt", "\u{feff}train8000.png 0\r\ntrain8001.png 1\r\n");
    list("classes.txt", "\u{feff}cat\nbig cat\n");
    let task = load(dir.path()).unwrap();
    assert_eq!(task.classes, ["cat", "big cat"]);
    assert!(task.train.sources[0].path().unwrap().ends_with("t/train8000.png"));
    task.check().unwrap();
    list("test.txt", "test0.png big cat\ntest1.png cat\n");
    assert_eq!(load(dir.path()).unwrap().test.labels, [1, 0]);
    list("test.txt", "test0.png big cat\ntest1.png 0\n");
    says(load(dir.path()), &["test.txt, line 2", "label '0' is not a class name"]);
    list("test.txt", "test0.png 0\n");
    list("classes.txt", "cat\ndog\ncat\n");
    says(load(dir.path()), &["classes.txt", "'cat' has two lines"]);
}

#[test]
fn a_task_of_one_class_is_refused_in_every_layout() {
    let dir = tempfile::tempdir().unwrap();
    lists(dir.path());
    for list in ["train800", "val200", "test"] {
        let lines: String = (0..3).map(|i| format!("{list}{i}.png 0\n")).collect();
        std::fs::write(dir.path().join("t").join(format!("{list}.txt")), lines).unwrap();
    }
    says(load(dir.path()), &["train800.txt", "there is one class", "two or more"]);
    std::fs::write(dir.path().join("t/classes.txt"), "a\nb\n").unwrap();
    assert_eq!(load(dir.path()).unwrap().classes, ["a", "b"]);
}

#[test]
fn folders_within_a_class_belong_to_it_and_those_of_tools_are_no_class() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..10 {
        save(&dir.path().join(format!("cat/{i}.png")), i);
        save(&dir.path().join(format!("big dog/{i}.jpg")), i);
    }
    for i in 0..5 {
        save(&dir.path().join(format!("cat/sub/deep/{i}.png")), i);
    }
    save(&dir.path().join("__MACOSX/cat/._0.png"), 0);
    save(&dir.path().join(".cache/0.png"), 0);
    save(&dir.path().join("loose.png"), 0);
    std::fs::write(dir.path().join("cat/sub/notes.txt"), "").unwrap();
    // A link back up ends nowhere.
    #[cfg(unix)]
    std::os::unix::fs::symlink(dir.path().join("cat"), dir.path().join("cat/sub/up")).unwrap();
    let task = load(dir.path()).unwrap();
    assert_eq!(task.classes, ["big dog", "cat"]);
    assert_eq!(task.train.len() + task.valid.len() + task.test.len(), 25);
    let notes = task.notes.join("\n");
    for part in [
        "1 image in no class folder left out: ",
        "loose.png",
        "1 file that is no image left out",
        "notes.txt",
    ] {
        assert!(notes.contains(part), "{notes}");
    }
}

#[test]
fn a_class_may_be_called_train() {
    let dir = tempfile::tempdir().unwrap();
    for class in ["train", "test", "bus"] {
        for i in 0..6 {
            save(&dir.path().join(class).join(format!("{i}.png")), i);
        }
    }
    let task = load(dir.path()).unwrap();
    assert_eq!(task.classes, ["bus", "test", "train"]);
    assert_eq!(task.train.len() + task.valid.len() + task.test.len(), 18);
    // With class folders in it, it is the part, and what lies beside is told of.
    let dir = tempfile::tempdir().unwrap();
    for class in ["train/a", "train/b", "extra"] {
        for i in 0..6 {
            save(&dir.path().join(class).join(format!("{i}.png")), i);
        }
    }
    let task = load(dir.path()).unwrap();
    assert_eq!(task.classes, ["a", "b"]);
    assert!(task.notes[0].contains("1 folder of images beside train left out") && task.notes[0].contains("extra"));
}

#[test]
fn parts_may_be_spelled_otherwise_and_are_never_classes() {
    for [train, valid, test] in [
        ["Train", "Val", "Test"],
        ["training", "Validation", "testing"],
        ["training_set", "valid", "test_set"],
        ["train", "VALID", "TEST-SET"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        for (part, count) in [(train, 4), (valid, 1), (test, 2)] {
            for class in ["a", "b"] {
                for i in 0..count {
                    save(&dir.path().join(part).join(class).join(format!("{i}.png")), i);
                }
            }
        }
        let task = load(dir.path()).unwrap();
        assert_eq!(task.classes, ["a", "b"], "{train}");
        assert_eq!(
            (task.train.len(), task.valid.len(), task.test.len()),
            (8, 2, 4),
            "{train}"
        );
        std::fs::remove_dir_all(dir.path().join(train)).unwrap();
        says(load(dir.path()), &["no folder in it is named train"]);
    }
    // Images without class folders.
    let dir = tempfile::tempdir().unwrap();
    for part in ["Train", "Test"] {
        (0..6).for_each(|i| save(&dir.path().join(part).join(format!("{i}.png")), i));
    }
    says(load(dir.path()), &["Train", "no class folder in it"]);
    std::fs::write(dir.path().join("Train/metadata.csv"), "file_name,label\n0.png,a\n").unwrap();
    says(load(dir.path()), &["its tables name 1 classes"]);
}

#[test]
fn images_are_turned_as_their_orientation_says_except_in_the_benchmarks() {
    let dir = tempfile::tempdir().unwrap();
    for (class, count) in [("a", 5), ("b", 5)] {
        std::fs::create_dir(dir.path().join(class)).unwrap();
        for i in 0..count {
            let to = dir.path().join(class).join(format!("{i}.jpg"));
            std::fs::copy(crate::fixture("image_kinds/turned6.jpg"), to).unwrap();
        }
    }
    let task = load(dir.path()).unwrap().keep(&|| true).unwrap();
    assert_eq!(task.train.rgb(0).unwrap().dimensions(), (17, 25));
    assert_eq!(task.notes, ["10 images turned as their EXIF orientation says"]);
    let lines = |range: std::ops::Range<u8>| range.map(|i| format!("a/{i}.jpg {}\n", i % 2)).collect::<String>();
    let vtab = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(vtab.path().join("dtd")).unwrap();
    std::fs::rename(dir.path().join("a"), vtab.path().join("dtd/a")).unwrap();
    for (list, range) in [("train800.txt", 0..2), ("val200.txt", 2..4), ("test.txt", 4..5)] {
        std::fs::write(vtab.path().join("dtd").join(list), lines(range)).unwrap();
    }
    assert_eq!(load(vtab.path()).unwrap().train.rgb(0).unwrap().dimensions(), (25, 17));
}
