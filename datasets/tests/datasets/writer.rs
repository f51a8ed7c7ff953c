//! Our own writer of TFDS folders, for sizes that no fixture should have.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use datasets::vtab::example::{BytesList, Example, Feature, Features, FloatList, IntList, Kind};
use prost::Message;

/// A PNG of one grey value.
pub fn png(value: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let image = image::GrayImage::from_pixel(2, 2, image::Luma([value]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

pub fn bytes(value: &[u8]) -> Kind {
    Kind::Bytes(BytesList {
        value: vec![value.to_vec()],
    })
}

pub fn ints(value: &[i64]) -> Kind {
    Kind::Ints(IntList { value: value.to_vec() })
}

pub fn floats(value: &[f32]) -> Kind {
    Kind::Floats(FloatList { value: value.to_vec() })
}

/// The message of a record.
pub fn example(features: &[(&str, Kind)]) -> Vec<u8> {
    let feature = features.iter().map(|(name, kind)| {
        let kind = Some(kind.clone());
        (name.to_string(), Feature { kind })
    });
    let features = Some(Features {
        feature: feature.collect(),
    });
    Example { features }.encode_to_vec()
}

fn masked(bytes: &[u8]) -> [u8; 4] {
    let crc = crc32c::crc32c(bytes);
    crc.rotate_right(15).wrapping_add(0xA282_EAD8).to_le_bytes()
}

/// Writes a TFRecord file.
pub fn write_records(path: &Path, records: impl Iterator<Item = Vec<u8>>) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for record in records {
        let length = (record.len() as u64).to_le_bytes();
        for part in [&length[..], &masked(&length), &record, &masked(&record)] {
            file.write_all(part).unwrap();
        }
    }
    file.flush().unwrap();
}

/// Writes a dataset of splits `(name, lengths of its shards)`; `record(split, index)` gives a record.
pub fn write_dataset(
    folder: &Path,
    name: &str,
    splits: &[(&str, &[usize])],
    record: impl Fn(&str, usize) -> Vec<u8>,
) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let mut described = Vec::new();
    for (split, lengths) in splits {
        let mut start = 0;
        for (shard, length) in lengths.iter().enumerate() {
            let file = format!("{name}-{split}.tfrecord-{shard:05}-of-{:05}", lengths.len());
            write_records(
                &folder.join(file),
                (start..start + length).map(|index| record(split, index)),
            );
            start += length;
        }
        let lengths: Vec<String> = lengths.iter().map(usize::to_string).collect();
        described.push(serde_json::json!({ "name": split, "shardLengths": lengths }));
    }
    let info = serde_json::json!({ "name": name, "splits": described });
    std::fs::write(folder.join("dataset_info.json"), info.to_string()).unwrap();
    folder.to_path_buf()
}
