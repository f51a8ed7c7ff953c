//! From TFDS folders of the real sizes, written here, to the layout of lists.

use std::path::Path;

use datasets::vtab::prepare::{clean, prepare};
use datasets::vtab::{Options, dsprites, info};
use datasets::{DataError, Resize, folder};

use crate::writer::{bytes, example, floats, ints, png, write_dataset};
use crate::{fixture, says};

const ANY: Options = Options { any_version: true };
const EXACT: Options = Options { any_version: false };

/// SmallNORB with TFDS's counts, over two shards per split: the image and the labels tell split and index.
fn smallnorb(root: &Path) {
    write_dataset(
        &root.join("smallnorb/2.0.0"),
        "smallnorb",
        &[("train", &[20_000, 4_300]), ("test", &[12_000, 12_300])],
        |split, index| {
            let half = if split == "train" { 0 } else { 128 };
            example(&[
                ("image", bytes(&png((half + index % 128) as u8))),
                ("label_azimuth", ints(&[(index % 18) as i64])),
                ("label_elevation", ints(&[(index % 9) as i64])),
            ])
        },
    );
}

fn run(data: &Path, out: &Path, name: &str, options: Options) -> Result<datasets::vtab::Prepared, DataError> {
    prepare(data, out, info(name).unwrap(), options)
}

#[test]
fn slices_labels_and_pixels_are_vtabs() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    smallnorb(data.path());
    let prepared = run(data.path(), out.path(), "smallnorb_azi", EXACT).unwrap();
    assert_eq!(prepared.source, "smallnorb/2.0.0");
    let counts: Vec<usize> = prepared.lists.iter().map(|list| list.images).collect();
    assert_eq!(counts, [800, 200, 12_150]);
    let task = folder::task(out.path(), "smallnorb_azi", 2, Resize::default()).unwrap();
    assert_eq!((task.group.as_str(), task.classes.len()), ("structured", 18));
    for (images, half, first) in [(&task.train, 0, 0), (&task.valid, 128, 0), (&task.test, 128, 12_150)] {
        for place in (0..images.len()).step_by(97) {
            let index = first + place;
            assert_eq!(images.labels[place], index % 18);
            let value = (half + index % 128) as u8;
            assert!(
                images.rgb(place).unwrap().as_raw().iter().all(|v| *v == value),
                "{index}"
            );
        }
    }
    let both = std::fs::read_to_string(out.path().join("smallnorb_azi/train800val200.txt")).unwrap();
    assert_eq!(both.lines().count(), 1000);
    // A second run leaves the folder as it is, and a second place gives the same checksums.
    std::fs::remove_dir_all(data.path().join("smallnorb")).unwrap();
    assert_eq!(run(data.path(), out.path(), "smallnorb_azi", EXACT).unwrap(), prepared);
    smallnorb(data.path());
    let again = tempfile::tempdir().unwrap();
    assert_eq!(
        run(data.path(), again.path(), "smallnorb_azi", EXACT).unwrap(),
        prepared
    );
    // Without the first two lists, the list of both does.
    for list in ["train800.txt", "val200.txt"] {
        std::fs::remove_file(out.path().join("smallnorb_azi").join(list)).unwrap();
    }
    assert_eq!(folder::tasks(out.path()).unwrap(), ["smallnorb_azi"]);
    let from_both = folder::task(out.path(), "smallnorb_azi", 2, Resize::default()).unwrap();
    assert_eq!((from_both.train, from_both.valid), (task.train, task.valid));
}

#[test]
fn what_fails_leaves_no_task_and_is_made_anew() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kitti = |vehicle: i64, image: &[u8]| {
        let image = image.to_vec();
        write_dataset(
            &data.path().join("kitti/3.2.0"),
            "kitti",
            &[("train", &[6_347]), ("validation", &[423]), ("test", &[711])],
            move |split, index| {
                let last = split == "test" && index == 700;
                example(&[
                    ("image", bytes(if last { &image } else { &TWO_GREYS[index % 2] })),
                    ("objects/type", ints(&[vehicle, 3])),
                    (
                        "objects/location",
                        floats(&[0.0, 0.0, if last { f32::NAN } else { 9.0 }, 0.0, 0.0, 1.0]),
                    ),
                ])
            },
        );
    };
    static TWO_GREYS: std::sync::LazyLock<[Vec<u8>; 2]> = std::sync::LazyLock::new(|| [png(0), png(9)]);
    kitti(0, b"no image");
    says(
        run(data.path(), out.path(), "kitti", EXACT),
        &["kitti-test", "image 700 of test", "no image of a kind that is read"],
    );
    assert!(folder::tasks(out.path()).unwrap().is_empty());
    kitti(0, &TWO_GREYS[0]);
    let prepared = run(data.path(), out.path(), "kitti", EXACT).unwrap();
    assert_eq!(prepared.lists[2].images, 711);
    let names = std::fs::read_to_string(out.path().join("kitti/classes.txt")).unwrap();
    assert_eq!(names.lines().nth(1), Some("8 to 20 m"));
    let left: Vec<_> = std::fs::read_dir(out.path()).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    // A folder that someone else made is not touched.
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("kitti")).unwrap();
    says(
        run(data.path(), other.path(), "kitti", EXACT),
        &["kitti", "not made by vtab-prepare", "--out"],
    );
}

#[test]
fn a_label_outside_the_classes_is_named() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_dataset(
        &data.path().join("dtd/3.0.1"),
        "dtd",
        &[("train", &[900]), ("validation", &[300]), ("test", &[10])],
        |split, index| {
            let label = if split == "validation" && index == 150 { 47 } else { 3 };
            example(&[("image", bytes(&png(1))), ("label", ints(&[label]))])
        },
    );
    says(
        run(data.path(), out.path(), "dtd", ANY),
        &["dtd-validation", "record 150", "label 47", "47 classes"],
    );
    says(
        run(data.path(), out.path(), "dtd", EXACT),
        &["'train' has 900 records", "1880"],
    );
}

#[test]
fn tfds_and_the_archive_give_the_same_dsprites() {
    // The task's slices need 737,280 images: the rules of the task with slices of 10 stand in.
    let mut task = info("dsprites_ori").unwrap().clone();
    let slices = [
        (&mut task.train, 0..10),
        (&mut task.valid, 10..20),
        (&mut task.test, 20..30),
    ];
    for (part, records) in slices {
        part.records = Some(records);
    }
    let (archive, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::copy(
        fixture("tfds").join(dsprites::FILE),
        archive.path().join(dsprites::FILE),
    )
    .unwrap();
    let from_archive = prepare(archive.path(), &out.path().join("a"), &task, ANY).unwrap();
    let from_tfds = prepare(&fixture("tfds"), &out.path().join("b"), &task, ANY).unwrap();
    assert_eq!(
        (from_archive.source.as_str(), from_tfds.source.as_str()),
        (dsprites::FILE, "dsprites/2.0.0")
    );
    assert_eq!(from_archive.lists, from_tfds.lists);
    let test = folder::task(&out.path().join("a"), "dsprites_ori", 64, Resize::default())
        .unwrap()
        .test;
    assert!(
        test.rgb(3)
            .unwrap()
            .as_raw()
            .iter()
            .all(|value| [0, 255].contains(value))
    );
    let whole = info("dsprites_ori").unwrap();
    says(
        prepare(archive.path(), &out.path().join("c"), whole, ANY),
        &[dsprites::FILE, "has 30 images"],
    );
}

/// DTD with a small test part.
fn dtd(root: &Path) {
    write_dataset(
        &root.join("dtd/3.0.1"),
        "dtd",
        &[("train", &[800]), ("validation", &[200]), ("test", &[60])],
        |_, index| {
            example(&[
                ("image", bytes(&png((index % 250) as u8))),
                ("label", ints(&[(index % 47) as i64])),
            ])
        },
    );
}

#[test]
fn several_at_once_in_one_folder_make_one_whole_task() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    dtd(data.path());
    let made: Vec<_> = std::thread::scope(|scope| {
        let run = || scope.spawn(|| run(data.path(), out.path(), "dtd", ANY).unwrap());
        let running: Vec<_> = (0..4).map(|_| run()).collect();
        running.into_iter().map(|made| made.join().unwrap()).collect()
    });
    assert!(made.iter().all(|prepared| *prepared == made[0]));
    let entries = std::fs::read_dir(out.path()).unwrap();
    let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["dtd"]);
    folder::task(out.path(), "dtd", 2, Resize::default())
        .unwrap()
        .check()
        .unwrap();
}

#[test]
fn what_was_changed_since_it_was_made_is_told_and_what_a_killed_run_left_is_removed() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    dtd(data.path());
    run(data.path(), out.path(), "dtd", ANY).unwrap();
    let image = out.path().join("dtd/images/test/000007.png");
    let whole = std::fs::read(&image).unwrap();
    std::fs::write(&image, png(251)).unwrap();
    says(
        run(data.path(), out.path(), "dtd", ANY),
        &["dtd", "test.txt", "not those that were prepared", "make it anew"],
    );
    std::fs::remove_file(&image).unwrap();
    says(run(data.path(), out.path(), "dtd", ANY), &["000007.png"]);
    std::fs::write(&image, whole).unwrap();
    run(data.path(), out.path(), "dtd", ANY).unwrap();
    // Lists of another length are noticed by whoever reads the task, too.
    let list = out.path().join("dtd/val200.txt");
    let lines = std::fs::read_to_string(&list).unwrap();
    std::fs::write(
        &list,
        lines
            .lines()
            .take(150)
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    )
    .unwrap();
    let read = folder::task(out.path(), "dtd", 2, Resize::default());
    says(read, &["val200 lists 150 images, and 200 were prepared"]);
    let partial = out.path().join(".kitti.partial/images");
    std::fs::create_dir_all(&partial).unwrap();
    std::fs::write(out.path().join(".kitti.lock"), "").unwrap();
    assert_eq!(clean(out.path()).unwrap(), ["kitti"]);
    assert!(!out.path().join(".kitti.partial").exists() && !out.path().join(".kitti.lock").exists());
    assert!(clean(out.path()).unwrap().is_empty());
}

#[test]
fn no_path_of_an_archive_leaves_its_folder() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    dtd(data.path());
    let path = data.path().join("dtd/3.0.1/dataset_info.json");
    let whole = std::fs::read_to_string(&path).unwrap();
    for template in ["../../{DATASET}-{SPLIT}", "/tmp/{SHARD_X_OF_Y}"] {
        let named = format!("\"filepathTemplate\":\"{template}\",\"name\":\"train\"");
        std::fs::write(&path, whole.replace("\"name\":\"train\"", &named)).unwrap();
        says(
            run(data.path(), out.path(), "dtd", ANY),
            &["dataset_info.json", "leads out"],
        );
    }
}
