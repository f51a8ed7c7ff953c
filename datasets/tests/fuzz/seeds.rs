//! Valid files to mutate: the fixtures, small ones of every kind, and what makes their checksums right again.

use std::io::Read;
use std::path::{Path, PathBuf};

fn fixtures_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

pub fn fixture(name: &str) -> Vec<u8> {
    let path = fixtures_folder().join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn fixtures(folder: &str, names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| fixture(&format!("{folder}/{name}"))).collect()
}

pub fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// The fixtures' images with one of these endings.
pub fn images(endings: &[&str]) -> Vec<Vec<u8>> {
    let mut paths = Vec::new();
    for folder in ["image_kinds", "images"] {
        let entries = std::fs::read_dir(fixtures_folder().join(folder)).unwrap().flatten();
        paths.extend(entries.map(|entry| entry.path()));
    }
    paths.retain(|path| {
        let name = path.to_string_lossy();
        !name.ends_with(".rgb.png") && endings.iter().any(|ending| name.ends_with(&format!(".{ending}")))
    });
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

pub fn lists() -> Vec<Vec<u8>> {
    texts(&[
        "images/a.png 0\nimages/b c.png 1\nimages/d.png 2\n",
        "\u{feff}a.png cat\r\nb.png big cat\r\nbig cat/c.png dog\r\n",
    ])
}

pub fn jsonl() -> Vec<Vec<u8>> {
    let call = r#"{"type": "function", "function": {"name": "f", "arguments": {"x": [1, 2.5e3]}}}"#;
    texts(&[
        "{\"instruction\": \"add\", \"input\": \"1 2\", \"output\": \"3\", \"score\": NaN}\n\n{\"prompt\": \"a\\u00e9\", \"completion\": 12}\n",
        &format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": [{{\"type\": \"text\", \"text\": \"hi\"}}]}}, \
             {{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{call}]}}, {{\"role\": \"tool\", \"content\": \"3\"}}, \
             {{\"role\": \"assistant\", \"content\": \"ho\", \"weight\": 1}}], \"tools\": [{call}]}}\n"
        ),
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"hi\"}, {\"from\": \"gpt\", \"value\": \"ho\"}], \"system\": \"be nice\"}\n",
        "[{\"instruction\": \"and?\", \"output\": \"4\", \"history\": [[\"1\", \"2\"]]},\n {\"prompt\": null, \"messages\": null, \
         \"instruction\": \"q\", \"output\": 123456789012345678901234567890}]",
    ])
}

pub fn json() -> Vec<Vec<u8>> {
    texts(&[
        "[{\"instruction\": \"is it?\\n\\nAnswer format: true/false\", \"input\": \"\", \"output\": \"the correct answer is true\", \"answer\": \"true\"}]",
        "[{\"instruction\": \"1 + 1?\", \"input\": \"\", \"output\": \"2\", \"answer\": \"1,002.5\"}]",
    ])
}

/// The records of all fixtures' datasets.
pub fn records() -> Vec<Vec<u8>> {
    let names = [
        "dtd/3.0.1/dtd-train.tfrecord-00000-of-00001",
        "clevr/3.1.0/clevr-train.tfrecord-00000-of-00001",
        "kitti/3.2.0/kitti-train.tfrecord-00000-of-00001",
    ];
    fixtures("tfds", &names)
}

/// Checksums of a PNG's chunks.
pub fn repair_png(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let Some(named) = bytes.get(at + 4..at + 8 + length) else {
            return;
        };
        let mut crc = flate2::Crc::new();
        crc.update(named);
        let Some(sum) = bytes.get_mut(at + 8 + length..at + 12 + length) else {
            return;
        };
        sum.copy_from_slice(&crc.sum().to_be_bytes());
        at += 12 + length;
    }
}

/// Checksums of TFRecords.
pub fn repair_records(bytes: &mut [u8]) {
    let masked = |bytes: &[u8]| {
        crc32c::crc32c(bytes)
            .rotate_right(15)
            .wrapping_add(0xA282_EAD8)
            .to_le_bytes()
    };
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + 8) {
        let length = u64::from_le_bytes(head.try_into().unwrap());
        let sum = masked(head);
        let Some(place) = bytes.get_mut(at + 8..at + 12) else {
            return;
        };
        place.copy_from_slice(&sum);
        let Some(end) = usize::try_from(length)
            .ok()
            .and_then(|length| (at + 12).checked_add(length))
        else {
            return;
        };
        let Some(sum) = bytes.get(at + 12..end).map(masked) else {
            return;
        };
        let Some(place) = bytes.get_mut(end..end + 4) else {
            return;
        };
        place.copy_from_slice(&sum);
        at = end + 4;
    }
}

/// A MAT file with its variables not compressed, so that mutations reach them.
pub fn inflated_mat(bytes: &[u8]) -> Vec<u8> {
    let mut made = bytes[..128].to_vec();
    let mut rest = &bytes[128..];
    while rest.len() >= 8 {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let (kind, length) = (word(0), word(4) as usize);
        if kind == 15 {
            flate2::read::ZlibDecoder::new(&rest[8..8 + length])
                .read_to_end(&mut made)
                .unwrap();
            rest = &rest[8 + length..];
        } else {
            let end = (8 + length.next_multiple_of(8)).min(rest.len());
            made.extend(&rest[..end]);
            rest = &rest[end..];
        }
    }
    made
}
