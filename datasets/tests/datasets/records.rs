//! Records as TensorFlow Datasets wrote them: labels, order and pixels are those its own reader gives.

use datasets::decode;
use datasets::vtab::dsprites::{self, Dsprites};
use datasets::vtab::example::Example;
use datasets::vtab::labels::label;
use datasets::vtab::tfds::Tfds;
use datasets::vtab::{info, prepare};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{fixture, says};

fn expected() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture("tfds/expected.json")).unwrap()).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn records_are_read_as_the_reference_reads_them() {
    let expected = expected();
    let tasks = expected["records"].as_object().unwrap();
    assert_eq!(tasks.len(), 8);
    for (name, splits) in tasks {
        let task = info(name).unwrap();
        let data = Tfds::open(&fixture("tfds"), task, true).unwrap();
        for (split, records) in splits.as_object().unwrap() {
            let records = records.as_array().unwrap();
            let mut found = Vec::new();
            data.records(split, 0..records.len(), &mut |_, _, bytes| {
                let example = Example::read(bytes).unwrap();
                let mut image = decode::memory(example.bytes("image").unwrap()).unwrap();
                image
                    .iter_mut()
                    .for_each(|value| *value = value.saturating_mul(task.gain));
                found.push((label(task.label, task.classes, &example).unwrap(), image));
                Ok(())
            })
            .unwrap();
            assert_eq!(found.len(), records.len());
            for ((label, image), record) in found.iter().zip(records) {
                assert_eq!(Some(*label as u64), record["label"].as_u64(), "{name} {split}");
                assert_eq!(Some(u64::from(image.height())), record["shape"][0].as_u64());
                assert_eq!(
                    Some(sha256(image.as_raw()).as_str()),
                    record["sha256"].as_str(),
                    "{name} {split}"
                );
            }
        }
    }
}

#[test]
fn a_part_of_a_split_is_that_part_of_the_whole() {
    let data = Tfds::open(&fixture("tfds"), info("dtd").unwrap(), true).unwrap();
    let read = |range| {
        let mut found = Vec::new();
        data.records("train", range, &mut |_, _, bytes| {
            found.push(bytes.to_vec());
            Ok(())
        })
        .map(|()| found)
    };
    let whole = read(0..7).unwrap();
    assert_eq!(read(2..5).unwrap(), whole[2..5]);
    says(read(2..8), &["dtd", "has 7 records", "2 to 8"]);
}

#[test]
fn dsprites_of_its_authors_come_in_the_order_of_tfds() {
    let expected = expected();
    let order: Vec<u64> = dsprites::tfds_order(1000, "train")
        .into_iter()
        .map(|n| n as u64)
        .collect();
    let stored: Vec<u64> = expected["order_of_1000"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_u64)
        .collect();
    assert_eq!(order[..stored.len()], stored);
    let archive = fixture("tfds").join(dsprites::FILE);
    let data = Dsprites::open(&archive, &[0..10, 20..30]).unwrap();
    let records = &expected["records"]["dsprites_ori"]["train"];
    for range in [0..10, 20..30] {
        let mut place = range.start;
        data.records("label_orientation", range, &mut |_, png, factor| {
            let mut image = decode::memory(&png).unwrap();
            image.iter_mut().for_each(|value| *value *= 255);
            assert_eq!(records[place]["label"].as_i64(), Some(factor * 2 / 5));
            assert_eq!(Some(sha256(image.as_raw()).as_str()), records[place]["sha256"].as_str());
            place += 1;
            Ok(())
        })
        .unwrap();
    }
    says(
        data.records("label_orientation", 5..15, &mut |_, _, _| Ok(())),
        &["5 to 15"],
    );
}

#[test]
fn a_damaged_archive_of_dsprites_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let whole = std::fs::read(fixture("tfds").join(dsprites::FILE)).unwrap();
    let path = dir.path().join(dsprites::FILE);
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for bytes in [&whole[..whole.len() / 2], &flipped, b"no archive"] {
        std::fs::write(&path, bytes).unwrap();
        says(
            Dsprites::open(&path, std::slice::from_ref(&(0..2))).map(|data| data.count),
            &[dsprites::FILE],
        );
    }
}

#[test]
fn an_archive_of_dsprites_with_an_array_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(dsprites::FILE);
    let whole = std::fs::read(fixture("tfds").join(dsprites::FILE)).unwrap();
    for array in ["imgs.npy", "latents_classes.npy"] {
        // Another name of the same length, wherever the archive says it.
        let mut bytes = whole.clone();
        for at in 0..bytes.len() - array.len() {
            if bytes[at..].starts_with(array.as_bytes()) {
                bytes[at] = b'x';
            }
        }
        std::fs::write(&path, bytes).unwrap();
        let opened = Dsprites::open(&path, std::slice::from_ref(&(0..2))).map(|data| data.count);
        says(opened, &[dsprites::FILE, &format!("there is no {array} in it")]);
    }
}

#[test]
fn counts_versions_and_classes_are_tfds_own_or_named() {
    let root = fixture("tfds");
    let open = |root: &std::path::Path, any| Tfds::open(root, info("dtd").unwrap(), any).map(|_| ());
    says(
        open(&root, false),
        &["dataset_info.json", "'train' has 7 records", "1880", "--any-version"],
    );
    open(&root, true).unwrap();
    let dir = tempfile::tempdir().unwrap();
    says(open(dir.path(), true), &["dtd", "dataset_info.json", "dtd:3.0.1"]);
    // Another version of the same files.
    let other = dir.path().join("dtd/9.0.0");
    std::fs::create_dir_all(&other).unwrap();
    for entry in std::fs::read_dir(root.join("dtd/3.0.1")).unwrap().flatten() {
        std::fs::copy(entry.path(), other.join(entry.file_name())).unwrap();
    }
    says(open(dir.path(), false), &["3.0.1", "only 9.0.0", "--any-version"]);
    open(dir.path(), true).unwrap();
    let change = |file: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(root.join("dtd/3.0.1").join(file)).unwrap();
        assert!(text.contains(from));
        std::fs::write(other.join(file), text.replace(from, to)).unwrap();
    };
    change("features.json", "\"47\"", "\"46\"");
    says(open(dir.path(), true), &["features.json", "46 classes", "dtd has 47"]);
    change("features.json", "\"label\"", "\"labels\"");
    says(open(dir.path(), true), &["no feature 'label'", "labels"]);
    change("features.json", "\"47\"", "\"47\"");
    change("dataset_info.json", "\"tfrecord\"", "\"array_record\"");
    says(open(dir.path(), true), &["array_record"]);
    change("dataset_info.json", "\"validation\"", "\"valid\"");
    says(open(dir.path(), true), &["no split 'validation'", "valid"]);
    std::fs::write(other.join("dataset_info.json"), "{").unwrap();
    says(open(dir.path(), true), &["dataset_info.json"]);
}

#[test]
fn damaged_records_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("dtd/3.0.1");
    std::fs::create_dir_all(&folder).unwrap();
    for entry in std::fs::read_dir(fixture("tfds/dtd/3.0.1")).unwrap().flatten() {
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let shard = folder.join("dtd-train.tfrecord-00000-of-00001");
    let whole = std::fs::read(&shard).unwrap();
    let read = |bytes: &[u8]| {
        std::fs::write(&shard, bytes).unwrap();
        let data = Tfds::open(dir.path(), info("dtd").unwrap(), true).unwrap();
        data.records("train", 0..7, &mut |_, _, _| Ok(()))
    };
    read(&whole).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        bytes
    };
    says(read(&flipped(30)), &["dtd-train", "record 0", "checksum of its bytes"]);
    says(read(&flipped(0)), &["dtd-train", "record 0", "checksum of its length"]);
    says(read(&flipped(9)), &["record 0", "checksum of its length"]);
    says(read(&whole[..whole.len() - 10]), &["record 6", "cut short"]);
    says(read(&whole[..5]), &["record 0", "cut short"]);
    says(read(&[&whole[..], &whole].concat()), &["does not hold the 7 records"]);
    says(read(&[]), &["does not hold the 7 records"]);
    std::fs::remove_file(&shard).unwrap();
    let data = Tfds::open(dir.path(), info("dtd").unwrap(), true).unwrap();
    says(
        data.records("train", 0..7, &mut |_, _, _| Ok(())),
        &["dtd-train.tfrecord-00000-of-00001"],
    );
}

#[test]
fn a_dataset_that_is_missing_is_not_there() {
    assert!(prepare::is_there(&fixture("tfds"), info("kitti").unwrap()));
    assert!(!prepare::is_there(&fixture("tfds"), info("cifar").unwrap()));
}
