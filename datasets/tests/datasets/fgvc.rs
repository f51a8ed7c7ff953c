//! The FGVC archives' lists, as SciPy and their authors write them.

use std::path::Path;

use datasets::fgvc::mat::{self, Value};
use datasets::fgvc::{ClassIds, DATASETS, task, tasks};
use datasets::{DataError, Images, Resize, Task};

use crate::{fixture, says};

fn load(root: &Path, name: &str) -> Result<Task, DataError> {
    task(root, name, 8, Resize::Crop, ClassIds::Joint)
}

/// Paths relative to `root` with their labels.
fn labelled(root: &Path, images: &Images) -> Vec<(String, usize)> {
    let path = |i: usize| images.sources[i].path().unwrap().strip_prefix(root).unwrap();
    (0..images.len())
        .map(|i| (path(i).to_str().unwrap().to_string(), images.labels[i]))
        .collect()
}

fn pairs(list: &[(&str, usize)]) -> Vec<(String, usize)> {
    list.iter().map(|(path, label)| (path.to_string(), *label)).collect()
}

#[test]
fn flowers_are_read_from_their_mat_files() {
    let root = fixture("fgvc");
    let flowers = load(&root, "flowers").unwrap();
    let expected = [
        ("flowers/jpg/image_00007.jpg", 2),
        ("flowers/jpg/image_00001.jpg", 0),
        ("flowers/jpg/image_00004.jpg", 1),
    ];
    assert_eq!(labelled(&root, &flowers.train), pairs(&expected));
    assert_eq!(flowers.valid.labels, [0, 2]);
    assert_eq!(flowers.test.labels, [0, 1, 1, 2]);
    assert_eq!((flowers.group.as_str(), flowers.classes.len()), ("fgvc", 3));
}

#[test]
fn dogs_are_read_from_cells_and_a_tenth_validates() {
    let root = fixture("fgvc");
    let dogs = load(&root, "dogs").unwrap();
    assert_eq!(dogs.classes, ["Chihuahua", "golden_retriever"]);
    assert_eq!((dogs.train.len(), dogs.valid.len(), dogs.test.len()), (9, 1, 3));
    let first = ("dogs/Images/n02085620-Chihuahua/n02085620_test0.jpg", 0);
    assert_eq!(labelled(&root, &dogs.test)[0], pairs(&[first])[0]);
    assert_eq!(load(&root, "dogs").unwrap(), dogs);
}

#[test]
fn cars_are_read_from_structs_in_both_layouts() {
    let root = fixture("fgvc");
    let cars = load(&root, "cars").unwrap();
    assert_eq!(cars.classes[2], "Ünïcode Coupé 2011");
    // 11 images: a tenth, rounded up, validates.
    assert_eq!((cars.train.len(), cars.valid.len(), cars.test.len()), (9, 2, 4));
    assert_eq!(
        labelled(&root, &cars.test)[3],
        pairs(&[("cars/cars_test/00004.jpg", 0)])[0]
    );
    let root = fixture("fgvc/cars_together");
    let together = load(&root, "cars").unwrap();
    assert_eq!(together.classes, cars.classes);
    assert_eq!(
        (together.train.labels.clone(), together.test.labels.len()),
        (cars.train.labels, 4)
    );
    assert_eq!(
        labelled(&root, &together.test)[0],
        pairs(&[("cars/car_ims/000012.jpg", 2)])[0]
    );
}

/// An archive of birds: (id, class, trains).
fn birds(root: &Path, images: &[(usize, usize, usize)]) {
    let folder = root.join("CUB_200_2011");
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, line: &dyn Fn(&(usize, usize, usize)) -> String| {
        let text: String = images.iter().map(|image| line(image) + "\n").collect();
        std::fs::write(folder.join(name), text).unwrap();
    };
    write("images.txt", &|(id, class, _)| format!("{id} c{class}/{id}.jpg"));
    // In another order than images.txt: the ids join them.
    let reversed: Vec<_> = images.iter().rev().collect();
    let labels: String = reversed
        .iter()
        .map(|(id, class, _)| format!("{id} {class}\n"))
        .collect();
    std::fs::write(folder.join("image_class_labels.txt"), labels).unwrap();
    write("train_test_split.txt", &|(id, _, trains)| format!("{id} {trains}"));
    std::fs::write(folder.join("classes.txt"), "3 Tern\n17 Old World Finch\n40 Owl\n").unwrap();
}

#[test]
fn birds_are_joined_by_id_and_their_class_ids_made_contiguous() {
    let dir = tempfile::tempdir().unwrap();
    let images: Vec<_> = (0..12).map(|i| (i, [3, 17, 40][i % 3], usize::from(i < 9))).collect();
    birds(dir.path(), &images);
    assert_eq!(tasks(dir.path()).unwrap(), ["cub"]);
    let cub = load(dir.path(), "cub").unwrap();
    assert_eq!(cub.classes, ["Tern", "Old World Finch", "Owl"]);
    assert_eq!(cub.test.labels, [0, 1, 2]);
    assert_eq!(
        labelled(dir.path(), &cub.test)[1],
        pairs(&[("CUB_200_2011/images/c17/10.jpg", 1)])[0]
    );
    let folder = dir.path().join("CUB_200_2011");
    let with = |name: &str, change: &dyn Fn(&str) -> String, parts: &[&str]| {
        let whole = std::fs::read_to_string(folder.join(name)).unwrap();
        std::fs::write(folder.join(name), change(&whole)).unwrap();
        says(load(dir.path(), "cub"), parts);
        std::fs::write(folder.join(name), whole).unwrap();
    };
    with(
        "images.txt",
        &|text| format!("{text}3 c17/3.jpg\n"),
        &["images.txt, line 13", "id 3"],
    );
    with("images.txt", &|_| String::new(), &["images.txt", "empty"]);
    with(
        "image_class_labels.txt",
        &|text| text.replace("4 17\n", ""),
        &["image_class_labels.txt", "image 4"],
    );
    with(
        "image_class_labels.txt",
        &|text| text.replace("4 17\n", "4 owl\n"),
        &["'owl'"],
    );
    with(
        "image_class_labels.txt",
        &|text| text.replace("10 17\n", "10 41\n"),
        &["class 41", "train on"],
    );
    with(
        "train_test_split.txt",
        &|text| text.replace("4 1\n", "4 2\n"),
        &["train_test_split.txt", "image 4", "'2'"],
    );
    with(
        "images.txt",
        &|text| text.replace("c17/4.jpg", "../../../etc/passwd"),
        &["images.txt", "leads out of its folder"],
    );
    std::fs::remove_file(folder.join("classes.txt")).unwrap();
    says(load(dir.path(), "cub"), &["classes.txt"]);
}

#[test]
fn split_files_are_read_and_ids_mapped_once_or_per_split() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("nabirds");
    std::fs::create_dir_all(folder.join("images")).unwrap();
    for name in ["a.jpg", "d.jpg", "e.jpg"] {
        std::fs::write(folder.join("images").join(name), "").unwrap();
    }
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("train.json", r#"{"a.jpg": 295, "b.jpg": "300", "c.jpg": 1010}"#);
    // Class 300 is missing: one mapping per split shifts the label of class 1010.
    write("val.json", r#"{"d.jpg": 1010, "d2.jpg": 295}"#);
    write("test.json", r#"{"e.jpg": 300, "f.jpg": 1010, "g.jpg": 295}"#);
    let of = |ids| task(dir.path(), "nabirds", 8, Resize::Crop, ids).unwrap();
    let joint = of(ClassIds::Joint);
    assert_eq!(joint.classes, ["295", "300", "1010"]);
    assert_eq!(
        (&joint.train.labels[..], &joint.valid.labels[..]),
        (&[0, 1, 2][..], &[2, 0][..])
    );
    assert_eq!(
        labelled(dir.path(), &joint.test)[1],
        pairs(&[("nabirds/images/f.jpg", 2)])[0]
    );
    let per_split = of(ClassIds::PerSplit);
    assert_eq!(
        (per_split.valid.labels, per_split.test.labels),
        (vec![1, 0], joint.test.labels)
    );
    for (text, part) in [
        (r#"{"d.jpg": 295, "d.jpg": 300}"#, "'d.jpg' occurs twice"),
        ("{}", "empty"),
        (r#"{"d.jpg": "owl"}"#, "\"owl\" of d.jpg"),
        (r#"{"z.jpg": 295}"#, "z.jpg"),
        (r#"["d.jpg"]"#, "an object"),
        (r#"{"d.jpg": 295, "/etc/passwd": 300}"#, "leads out"),
    ] {
        write("val.json", text);
        says(load(dir.path(), "nabirds"), &["val.json", part]);
    }
    std::fs::remove_file(folder.join("test.json")).unwrap();
    says(load(dir.path(), "nabirds"), &["test.json"]);
}

#[test]
fn missing_folders_files_and_names_are_named() {
    let dir = tempfile::tempdir().unwrap();
    says(tasks(dir.path()), &["CUB_200_2011", "NABirds"]);
    says(load(dir.path(), "cub"), &["cub", "no such folder"]);
    says(
        load(dir.path(), "cats"),
        &["'cats' is unknown", "cub, nabirds, flowers, dogs, cars"],
    );
    for info in &DATASETS {
        std::fs::create_dir(dir.path().join(info.name)).unwrap();
        says(load(dir.path(), info.name), &[info.name]);
    }
    // An image that is listed and not there is found when the task is read.
    says(
        load(&fixture("fgvc"), "flowers").and_then(|task| task.keep(&|| true)),
        &["image_0000"],
    );
}

#[test]
fn every_list_that_an_archive_lacks_is_named() {
    let lacks = |root: &Path, name: &str, list: &str| {
        let whole = std::fs::read(root.join(list)).unwrap();
        std::fs::remove_file(root.join(list)).unwrap();
        says(load(root, name), &[list]);
        std::fs::write(root.join(list), whole).unwrap();
    };
    let dir = tempfile::tempdir().unwrap();
    let images: Vec<_> = (0..12).map(|i| (i, [3, 17, 40][i % 3], usize::from(i < 9))).collect();
    birds(dir.path(), &images);
    for list in [
        "images.txt",
        "image_class_labels.txt",
        "train_test_split.txt",
        "classes.txt",
    ] {
        lacks(dir.path(), "cub", &format!("CUB_200_2011/{list}"));
    }
    for (name, list) in [
        ("flowers", "flowers/setid.mat"),
        ("flowers", "flowers/imagelabels.mat"),
        ("dogs", "dogs/train_list.mat"),
        ("dogs", "dogs/test_list.mat"),
        ("cars", "cars/devkit/cars_meta.mat"),
        ("cars", "cars/devkit/cars_train_annos.mat"),
        ("cars", "cars/devkit/cars_test_annos_withlabels.mat"),
    ] {
        let archive = tempfile::tempdir().unwrap();
        copy(&fixture("fgvc").join(name), &archive.path().join(name));
        load(archive.path(), name).unwrap();
        lacks(archive.path(), name, list);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[test]
fn damaged_mat_files_are_named_and_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mat");
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        mat::read(&path)
    };
    says(read(b"MATLAB 7.3 MAT-file"), &["a.mat", "-v7"]);
    says(read(b"text"), &["a.mat", "level 5"]);
    for name in [
        "flowers/setid.mat",
        "dogs/test_list.mat",
        "cars/devkit/cars_test_annos_withlabels.mat",
    ] {
        let whole = std::fs::read(fixture("fgvc").join(name)).unwrap();
        for length in (0..whole.len()).step_by(7) {
            // Where a variable ends, what is left is a whole file.
            let cut = read(&whole[..length]);
            assert!(
                cut.is_err() || !name.starts_with("cars") || length == 128,
                "{name} {length}"
            );
        }
        for at in (128..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            let _ = read(&bytes);
        }
    }
    let variables = mat::read(&fixture("fgvc/flowers/setid.mat")).unwrap();
    assert_eq!(
        Value::field(&variables, "valid").unwrap().numbers(),
        Ok(&[2.0, 8.0][..])
    );
    says(Value::field(&variables, "train"), &["'train'", "trnid, tstid, valid"]);
}
