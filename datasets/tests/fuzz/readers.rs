//! The readers: each with valid files, and what it does with one.

use std::path::Path;

use datasets::fgvc::{self, ClassIds, mat};
use datasets::language::{Fields, arithmetic, commonsense, example, records};
use datasets::parquet_images::Columns;
use datasets::vtab::dsprites::Dsprites;
use datasets::vtab::example::Example;
use datasets::vtab::labels::label;
use datasets::vtab::tfds::Tfds;
use datasets::vtab::tfrecord::Records;
use datasets::vtab::{TASKS, info};
use datasets::{Decoder, Resize, Task, folder, lists, root};

use crate::harness::Reader;
use crate::seeds;

/// Pixels that a mutated image may have: what is decoded stays small beside what is asserted of memory.
const MOST_PIXELS: u64 = 1 << 20;

const DECODER: Decoder = Decoder {
    max_pixels: MOST_PIXELS,
    apply_orientation: true,
};

pub const READERS: &[Reader] = &[
    Reader {
        name: "jpeg",
        seeds: || seeds::images(&["jpg"]),
        repair: None,
        read: image,
    },
    Reader {
        name: "png",
        seeds: || seeds::images(&["png"]),
        repair: Some(seeds::repair_png),
        read: image,
    },
    Reader {
        name: "other-images",
        seeds: || seeds::images(&["gif", "bmp", "webp", "tif", "tiff", "ppm", "pgm", "pbm"]),
        repair: None,
        read: image,
    },
    Reader {
        name: "list",
        seeds: seeds::lists,
        repair: None,
        read: list,
    },
    Reader {
        name: "classes",
        seeds: || seeds::texts(&["cat\nbig cat\ndog\n", "\u{feff}a\r\nb\r\n"]),
        repair: None,
        read: classes,
    },
    Reader {
        name: "prepared",
        seeds: || {
            let list = r#"{"list": "train800", "images": 2, "sha256": "00"}"#;
            seeds::texts(&[&format!(r#"{{"source": "dtd/3.0.1", "lists": [{list}]}}"#)])
        },
        repair: None,
        read: prepared,
    },
    Reader {
        name: "jsonl",
        seeds: seeds::jsonl,
        repair: None,
        read: |folder, bytes| examples(folder, "a.jsonl", bytes),
    },
    Reader {
        name: "csv",
        seeds: || {
            seeds::texts(&[
                "prompt,completion\n\"a, \"\"b\"\"\",3\n\"two\nlines\",4\n",
                "\u{feff}instruction,output\r\nq,a\r\n",
            ])
        },
        repair: None,
        read: |folder, bytes| examples(folder, "a.csv", bytes),
    },
    Reader {
        name: "json",
        seeds: seeds::json,
        repair: None,
        read: questions,
    },
    Reader {
        name: "parquet",
        seeds: || {
            let codecs = ["codecs/brotli.parquet", "codecs/lz4.parquet", "codecs/delta-v2.parquet"];
            seeds::fixtures(
                "parquet",
                &[&["chat.parquet", "sums.parquet", "zstd.parquet"][..], &codecs].concat(),
            )
        },
        repair: None,
        read: |folder, bytes| examples(folder, "a.parquet", bytes),
    },
    Reader {
        name: "parquet-images",
        seeds: || {
            seeds::fixtures(
                "parquet/images/data",
                &["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
            )
        },
        repair: None,
        read: parquet_images,
    },
    Reader {
        name: "tfrecord",
        seeds: seeds::records,
        repair: Some(seeds::repair_records),
        read: tfrecord,
    },
    Reader {
        name: "dataset-info",
        seeds: || seeds::fixtures("tfds/dtd/3.0.1", &["dataset_info.json"]),
        repair: None,
        read: |folder, bytes| tfds(folder, "dataset_info.json", bytes),
    },
    Reader {
        name: "features",
        seeds: || seeds::fixtures("tfds/dtd/3.0.1", &["features.json"]),
        repair: None,
        read: |folder, bytes| tfds(folder, "features.json", bytes),
    },
    Reader {
        name: "npz",
        seeds: || seeds::fixtures("tfds", &[datasets::vtab::dsprites::FILE]),
        repair: None,
        read: npz,
    },
    Reader {
        name: "mat",
        seeds: || {
            let lists = ["flowers/setid.mat", "flowers/imagelabels.mat", "dogs/test_list.mat"];
            let cars = [
                "cars/devkit/cars_meta.mat",
                "cars/devkit/cars_test_annos_withlabels.mat",
            ];
            let mut seeds = seeds::fixtures("fgvc", &[&lists[..], &cars].concat());
            let inflated: Vec<Vec<u8>> = seeds.iter().map(|seed| seeds::inflated_mat(seed)).collect();
            seeds.extend(inflated);
            seeds
        },
        repair: None,
        read: |folder, bytes| {
            mat::read(&written(folder, "a.mat", bytes))
                .map(drop)
                .map_err(|e| e.to_string())
        },
    },
    Reader {
        name: "split-file",
        seeds: || seeds::texts(&[r#"{"a.jpg": 295, "b.jpg": "295", "c/d.jpg": 295, "e.jpg": 295}"#]),
        repair: None,
        read: split_file,
    },
    Reader {
        name: "birds",
        seeds: || seeds::texts(&["1 c/1.jpg\n2 c/2.jpg\n3 d/3.jpg\n", "\u{feff}3 x y.jpg\r\n"]),
        repair: None,
        read: birds,
    },
];

pub fn written(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Writes `text` unless the file is there.
pub fn beside(folder: &Path, name: &str, text: &[u8]) {
    if !folder.join(name).exists() {
        written(folder, name, text);
    }
}

fn image(folder: &Path, bytes: &[u8]) -> Result<(), String> {
    let path = written(folder, "a.png", bytes);
    let from_file = DECODER
        .file(&path)
        .map(|decoded| decoded.image)
        .map_err(|e| e.to_string());
    let from_bytes = DECODER.bytes(bytes).map(|decoded| decoded.image);
    assert_eq!(from_file.as_ref().ok(), from_bytes.as_ref().ok());
    if let Ok((width, height)) = DECODER.bytes_size(bytes) {
        assert!(u64::from(width) * u64::from(height) <= MOST_PIXELS);
    }
    let image = from_file?;
    for resize in [Resize::Bilinear, Resize::Lanczos, Resize::Crop] {
        match resize.apply(&image, 16, Some(1)) {
            Ok(pixels) => assert_eq!(pixels.len(), 3 * 16 * 16),
            Err(message) => assert!(message.contains("too narrow"), "{message}"),
        }
    }
    Ok(())
}

fn list(folder: &Path, bytes: &[u8]) -> Result<(), String> {
    let path = written(folder, "l.txt", bytes);
    let classes = ["cat", "big cat", "dog"].map(String::from);
    let named = lists::read_with(&path, &classes).map_err(|e| e.to_string());
    if let Ok(entries) = &named {
        let _ = lists::check_labels(&path, entries, classes.len());
    }
    let numbered = lists::read(&path).map_err(|e| e.to_string());
    named.or(numbered).map(drop)
}

fn task_of_lists(folder: &Path) -> Result<Task, String> {
    for list in ["train800.txt", "val200.txt", "test.txt"] {
        beside(folder, &format!("t/{list}"), b"a.png 0\nb.png 1\n");
    }
    folder::task(folder, "t", 8, Resize::default()).map_err(|e| e.to_string())
}

fn classes(folder: &Path, bytes: &[u8]) -> Result<(), String> {
    written(folder, "t/classes.txt", bytes);
    task_of_lists(folder).map(drop)
}

fn prepared(folder: &Path, bytes: &[u8]) -> Result<(), String> {
    written(folder, "t/prepared.json", bytes);
    task_of_lists(folder).map(drop)
}

fn examples(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    let path = written(folder, name, bytes);
    let _ = records::read(&path);
    let read = example::read(&[path], &Fields::default()).map_err(|e| e.to_string())?;
    assert!(read.reasons.len() <= read.bad);
    for example in &read.examples {
        if let datasets::language::Example::Chat(chat) = example {
            serde_json::to_string(&chat.messages).map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

fn questions(folder: &Path, bytes: &[u8]) -> Result<(), String> {
    written(folder, "boolq/test.json", bytes);
    let common = commonsense::test(folder, commonsense::SETS[0]);
    let path = written(folder, "gsm8k/test.json", bytes);
    let sums = arithmetic::test(folder, arithmetic::SETS[1]);
    let train = commonsense::train(&[path], datasets::language::Protocol::New);
    common.or(sums).map(drop).or(train.map(drop)).map_err(|e| e.to_string())
}

fn parquet_images(folder: &Path, bytes: &[u8]) -> Result<(), String> {
    written(folder, "train.parquet", bytes);
    let others = seeds::fixture("parquet/images/data/test-00000-of-00001.parquet");
    beside(folder, "validation.parquet", &others);
    beside(folder, "test.parquet", &others);
    let columns = Columns::default();
    let task = root::task_with(folder, "t", 8, Resize::default(), &columns).map_err(|e| e.to_string())?;
    let task = task.with_decoder(DECODER);
    for index in 0..task.train.len() {
        let _ = task.train.pixels(index);
    }
    Ok(())
}

fn tfrecord(folder: &Path, bytes: &[u8]) -> Result<(), String> {
    let mut records = Records::open(&written(folder, "a.tfrecord", bytes)).map_err(|e| e.to_string())?;
    let (mut record, mut made) = (Vec::new(), Err("no record".to_string()));
    while records.next_into(&mut record).map_err(|e| e.to_string())? {
        if let Ok(example) = Example::read(&record) {
            for task in &TASKS {
                let _ = label(task.label, task.classes, &example);
            }
            made = example.bytes("image").map(drop);
        }
    }
    made
}

pub fn tfds(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    let own = folder.join("dtd/3.0.1");
    for file in [
        "dataset_info.json",
        "features.json",
        "dtd-train.tfrecord-00000-of-00001",
    ] {
        if file != name {
            beside(&own, file, &seeds::fixture(&format!("tfds/dtd/3.0.1/{file}")));
        }
    }
    written(&own, name, bytes);
    let data = Tfds::open(folder, info("dtd").unwrap(), true).map_err(|e| e.to_string())?;
    data.class_names("label");
    let count = data.count("train").map_err(|e| e.to_string())?;
    data.records("train", 0..count.min(7), &mut |path, _, _| {
        assert!(path.starts_with(&own), "{} lies elsewhere", path.display());
        Ok(())
    })
    .map_err(|e| e.to_string())
}

fn npz(folder: &Path, bytes: &[u8]) -> Result<(), String> {
    let data = Dsprites::open(&written(folder, "a.npz", bytes), &[0..4, 20..24]).map_err(|e| e.to_string())?;
    let read = data.records("label_orientation", 0..4, &mut |_, _, _| Ok(()));
    read.map_err(|e| e.to_string())
}

fn split_file(folder: &Path, bytes: &[u8]) -> Result<(), String> {
    beside(folder, "nabirds/images/a.jpg", b"");
    beside(folder, "nabirds/test.json", br#"{"a.jpg": 295}"#);
    written(folder, "nabirds/train.json", bytes);
    fgvc_task(folder, "nabirds")
}

fn birds(folder: &Path, bytes: &[u8]) -> Result<(), String> {
    let pairs = |values: [&str; 3]| {
        let lines: Vec<String> = (1..4)
            .zip(values)
            .map(|(id, value)| format!("{id} {value}\n"))
            .collect();
        lines.concat().into_bytes()
    };
    beside(folder, "cub/image_class_labels.txt", &pairs(["1", "1", "1"]));
    beside(folder, "cub/train_test_split.txt", &pairs(["1", "1", "0"]));
    beside(folder, "cub/classes.txt", b"1 Owl\n");
    written(folder, "cub/images.txt", bytes);
    fgvc_task(folder, "cub")
}

fn fgvc_task(folder: &Path, name: &str) -> Result<(), String> {
    let task = fgvc::task(folder, name, 8, Resize::Crop, ClassIds::Joint).map_err(|e| e.to_string())?;
    for part in [&task.train, &task.valid, &task.test] {
        for image in &part.sources {
            assert!(image.path().unwrap().starts_with(folder.join(name)));
        }
    }
    Ok(())
}
