//! What large and hostile files may take of memory. One test at a time: they count all allocations of the process.

#[path = "../datasets/forged.rs"]
mod forged;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use datasets::language::{Fields, example, records};
use datasets::texts::{self, TextFields};
use datasets::{Decoder, ImageSource, Images, Resize};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::RgbImage;
use indicatif::ProgressBar;
use peak_alloc::PeakAlloc;
use rayon::prelude::*;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `work` returns, and the most MB that it held beyond what was held before.
fn measured<T>(work: impl FnOnce() -> T) -> (T, f32) {
    let before = MEMORY.current_usage_as_mb();
    MEMORY.reset_peak_usage();
    let made = work();
    (made, MEMORY.peak_usage_as_mb() - before)
}

/// A black PNG of `side` x `side` RGB, written without holding it: about a thousandth of its pixels' bytes.
fn bomb(path: &Path, side: u32) {
    let mut pixels = ZlibEncoder::new(Vec::new(), Compression::best());
    let row = vec![0; 1 + 3 * side as usize];
    (0..side).for_each(|_| pixels.write_all(&row).unwrap());
    let header = [&side.to_be_bytes()[..], &side.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, data) in [
        (b"IHDR", header),
        (b"IDAT", pixels.finish().unwrap()),
        (b"IEND", Vec::new()),
    ] {
        file.extend((data.len() as u32).to_be_bytes());
        let named = [&name[..], &data].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&named);
        file.extend(named);
        file.extend(crc.sum().to_be_bytes());
    }
    std::fs::write(path, file).unwrap();
}

fn images_of(path: &Path, count: usize) -> Images {
    let mut images = Images::new(224, Resize::default());
    let path: PathBuf = path.into();
    (0..count).for_each(|_| images.push(ImageSource::File(path.as_path().into()), 0));
    images
}

#[test]
fn images_above_the_limit_are_refused_before_anything_is_allocated() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb.png");
    bomb(&path, 13_000);
    let mut images = images_of(&path, 30);
    let (kept, taken) = measured(|| images.keep(1 << 30, &ProgressBar::hidden(), &|| true));
    let message = kept.unwrap_err().to_string();
    for part in ["bomb.png", "13000 x 13000 = 169000000 pixels", "limit of 134217728"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(taken < 16.0, "{taken} MB");
    let (read, taken) = measured(|| images.pixels(0));
    assert!(read.unwrap_err().to_string().contains("bomb.png"));
    assert!(taken < 4.0, "{taken} MB");
}

#[test]
fn large_images_are_decoded_one_after_the_other() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb.png");
    bomb(&path, 11_000); // 363 MB each
    let mut images = images_of(&path, 6);
    images.decoder.max_pixels = 200_000_000;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(6).build().unwrap();
    let (read, taken) = measured(|| {
        pool.install(|| {
            (0..6)
                .into_par_iter()
                .map(|index| images.pixels(index).map(|pixels| pixels.len()))
                .collect::<Result<Vec<_>, _>>()
        })
    });
    assert_eq!(read.unwrap(), [3 * 224 * 224; 6]);
    assert!(taken < 363.0 * 1.15, "{taken} MB");
}

#[test]
fn photographs_are_not_decoded_beyond_what_is_kept() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("photo.jpg");
    RgbImage::from_fn(6000, 4000, |x, y| {
        image::Rgb([(x / 24) as u8, (y / 16) as u8, ((x + y) / 40) as u8])
    })
    .save(&path)
    .unwrap();
    let mut images = images_of(&path, 64);
    let limit = 160 << 20; // two of 72 MB
    let pool = rayon::ThreadPoolBuilder::new().num_threads(8).build().unwrap();
    let (_, taken) = measured(|| {
        pool.install(|| images.keep(limit, &ProgressBar::hidden(), &|| true))
            .unwrap()
    });
    assert_eq!(images.kept_bytes(), 2 * 3 * 6000 * 4000);
    // One is kept while the other is decoded: its components, which libjpeg-turbo keeps whole, and its pixels.
    assert!(taken < 220.0, "{taken} MB");
    // Eight threads read the others: no more at a time than may be decoded at one time.
    let (_, taken) = measured(|| {
        pool.install(|| {
            (2..18).into_par_iter().for_each(|index| {
                images.pixels(index).unwrap();
            })
        })
    });
    assert!(taken < 300.0, "{taken} MB");
}

#[test]
fn a_resize_takes_no_copy_of_a_large_image() {
    let _alone = alone();
    let image = RgbImage::new(8000, 6000);
    for resize in [
        Resize::Bilinear,
        Resize::BilinearAntialias,
        Resize::Bicubic,
        Resize::Crop,
    ] {
        let (_, taken) = measured(|| resize.apply(&image, 224, None).unwrap());
        assert!(taken < 16.0, "{resize:?}: {taken} MB");
    }
}

#[test]
fn a_jpeg_of_few_bytes_that_claims_many_pixels_is_refused() {
    let _alone = alone();
    let mut file = std::io::Cursor::new(Vec::new());
    RgbImage::new(16, 16)
        .write_to(&mut file, image::ImageFormat::Jpeg)
        .unwrap();
    let mut bytes = file.into_inner();
    let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    for (side, part) in [(13_000_u16, "limit"), (11_000, "cannot hold the 11000 x 11000 pixels")] {
        let side = side.to_be_bytes();
        bytes[frame + 5..frame + 9].copy_from_slice(&[side[0], side[1], side[0], side[1]]);
        let (decoded, taken) = measured(|| Decoder::default().bytes(&bytes).map(drop));
        let message = decoded.unwrap_err();
        assert!(message.contains(part), "{message}");
        assert!(taken < 1.0, "{taken} MB");
    }
}

#[test]
fn a_parquet_file_that_grows_is_refused_before_it_does() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    let mut zeros = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
    (0..64).for_each(|_| zeros.write_all(&[0; 1 << 20]).unwrap());
    let zeros = zeros.finish().unwrap();
    let page = |kind, values, encoding, size, body| forged::Page {
        kind,
        values,
        encoding,
        size,
        body,
    };
    let dictionary = [&(1_u32 << 20).to_le_bytes()[..], &[b'x'; 1 << 20]].concat();
    let length = dictionary.len() as i64;
    let cases = [
        // It holds more than it announces.
        (2, 1, vec![page(0, 1, 0, 1000, &zeros)]),
        // It announces more than it may.
        (6, 1, vec![page(0, 1, 0, i32::MAX.into(), &zeros)]),
        // A run of 100,000 times a text of a megabyte.
        (
            0,
            100_000,
            vec![
                page(2, 1, 0, length, &dictionary),
                page(0, 100_000, 8, 5, &[1, 0xC0, 0x9A, 0x0C, 0]),
            ],
        ),
    ];
    for (codec, rows, pages) in cases {
        forged::write(&path, codec, 0, rows, &pages);
        let (read, taken) = measured(|| records::read(&path).map(drop));
        assert!(read.unwrap_err().to_string().contains("column 'text'"));
        assert!(taken < 8.0, "codec {codec}: {taken} MB");
    }
}

#[test]
fn a_wide_table_takes_the_memory_of_the_columns_that_are_used() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (columns, rows) = (300, 1000);
    let cells = |cell: &dyn Fn(usize) -> String| (0..columns).map(cell).collect::<Vec<_>>().join(",");
    let mut table = format!("prompt,completion,{}\n", cells(&|column| format!("column {column}")));
    let mut lines = String::new();
    for row in 0..rows {
        table += &format!("a,b,{}\n", cells(&|column| format!("{row} {column}")));
        let fields = cells(&|column| format!("\"column {column}\": \"{row} {column}\""));
        lines += &format!("{{\"prompt\": \"a\", \"completion\": \"b\", {fields}}}\n");
    }
    let fields = TextFields::parse("prompt", Some("completion")).unwrap();
    // All cells took more than 30 MB.
    let list = format!("[{}]", lines.trim_end().replace('\n', ",\n"));
    for (name, text) in [("a.csv", &table), ("a.jsonl", &lines), ("a.json", &list)] {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let most = 3.0 * text.len() as f32 / 1e6 + 2.0;
        let (read, taken) = measured(|| texts::read(&path, &fields).unwrap());
        assert!(read.items.len() == rows && taken < most, "{name}: {taken} MB of {most}");
        let (read, taken) = measured(|| example::read(std::slice::from_ref(&path), &Fields::default()).unwrap());
        assert!(
            read.examples.len() == rows && taken < most,
            "{name}: {taken} MB of {most}"
        );
    }
}
