//! Kinds of image files and ways of resizing, against Pillow, PyTorch and torchvision.

use datasets::{Decoder, ImageSource, Images, Resize, decode};
use image::RgbImage;
use indicatif::ProgressBar;

use crate::{fixture, says};

fn image(name: &str) -> RgbImage {
    decode::file(&fixture("images").join(name)).unwrap()
}

/// Greatest difference of two images of one size.
fn apart(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    let differences = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b));
    differences.max().unwrap()
}

#[test]
fn every_kind_of_image_becomes_rgb_by_the_stated_rule() {
    for name in ["grey.png", "alpha.png", "palette.png", "bits.png"] {
        assert_eq!(apart(&image(name), &image(&format!("{name}.rgb.png"))), 0, "{name}");
    }
    for name in ["grey.jpg", "plain.jpg", "cmyk.jpg"] {
        assert_eq!(apart(&image(name), &image(&format!("{name}.rgb.png"))), 0, "{name}");
    }
    // Of 16 bits the higher 8: 230 * 257 + 60 = 231 * 256 + 34.
    assert_eq!(image("deep.png").get_pixel(3, 2).0, [30, 30, 231]);
}

/// The file's pixels are Pillow's; where colours are computed, one is rounded otherwise.
fn read_as_pillow(name: &str) {
    let path = fixture("image_kinds").join(name);
    let tolerance = match name {
        "lossy.webp" | "lossy60.webp" | "lossyalpha.webp" | "ycbcr.tif" => 1,
        // 5 or 6 bits, or a number that 255 is no multiple of, as 8 bits.
        "555.bmp" | "565.bmp" | "most100.pgm" | "most100.ppm" | "most1000.ppm" => 1,
        _ => 0,
    };
    let expected = decode::file(&path.with_added_extension("rgb.png")).unwrap();
    let difference = apart(&decode::file(&path).unwrap(), &expected);
    assert!(difference <= tolerance, "{difference}");
}

/// One test per file of image_kinds.
mod kinds {
    use super::read_as_pillow;

    include!("../fixtures/image_kinds/cases.rs");
}

#[test]
fn kinds_of_tiff_that_are_not_read_are_named() {
    for (name, part) in [
        ("lab.tif", "LAB colours; grey, palettes, RGB, CMYK and YCbCr are read"),
        ("fax3.tif", "compressed with fax group 3; LZW"),
        ("zstd.tif", "compressed with Zstandard; LZW"),
    ] {
        says(decode::file(&fixture("image_kinds").join(name)), &[name, part]);
    }
}

#[test]
fn what_is_lost_is_told() {
    let lost = |name: &str| {
        Decoder::default()
            .file(&fixture("image_kinds").join(name))
            .unwrap()
            .lost
    };
    for name in [
        "deep_grey.png",
        "deep_grey_be.tif",
        "most65535.pgm",
        "signed_le.tif",
        "floats.tif",
    ] {
        assert!(lost(name).is_some_and(|lost| lost.contains("clipped")), "{name}");
    }
    assert!(lost("damaged.jpg").is_some_and(|lost| lost.contains("damaged")));
    for name in [
        "deep_rgb.png",
        "grey.tif",
        "noise420.jpg",
        "noise420p.jpg",
        "small_frame.gif",
    ] {
        assert_eq!(lost(name), None, "{name}");
    }
}

#[test]
fn the_first_image_that_loses_something_is_noted() {
    let mut images = Images::new(8, Resize::default());
    for name in ["rgb.png", "deep_grey.png", "turned6.jpg", "damaged.jpg"] {
        images.push(ImageSource::File(fixture("image_kinds").join(name).into()), 0);
    }
    let noticed = images.keep(usize::MAX, &ProgressBar::hidden(), &|| true).unwrap();
    assert_eq!((noticed.turned, noticed.lost), (1, 2));
    let first = noticed.first.unwrap();
    assert!(first.contains("deep_grey.png: its grey values"), "{first}");
}

#[test]
fn a_jpeg_of_twelve_bits_is_refused() {
    let mut bytes = std::fs::read(fixture("image_kinds/noise420.jpg")).unwrap();
    let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    bytes[frame + 4] = 12;
    assert!(decode::memory(&bytes).unwrap_err().contains("12 bits per sample"));
}

#[test]
fn the_orientation_may_be_ignored() {
    let path = fixture("image_kinds/turned6.jpg");
    let as_stored = Decoder::of_benchmarks().file(&path).unwrap();
    assert_eq!((as_stored.image.dimensions(), as_stored.turned), ((25, 17), false));
    let turned = Decoder::default().file(&path).unwrap();
    assert_eq!((turned.image.dimensions(), turned.turned), ((17, 25), true));
    assert_eq!(Decoder::default().file_size(&path).unwrap(), (25, 17));
}

#[test]
fn what_is_no_image_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.png");
    says(decode::file(&path), &["a.png"]);
    let whole = std::fs::read(fixture("images/plain.jpg")).unwrap();
    for (bytes, part) in [
        (&b""[..], "no bytes"),
        (b"text", "no image of a kind that is read; JPEG, PNG"),
        (b"\0\0\0\x20ftypavif....", "an AVIF image; JPEG, PNG"),
        (b"\0\0\0\x20ftypheic....", "a HEIC image; JPEG, PNG"),
        (b"\0\0\0\x20ftypisom....", "a film or image"),
        (b"DDS ....", "a DDS image; JPEG, PNG"),
        (b"II*\0....", "a.png"),
        (b"GIF89a....", "a.png"),
        (b"BM......", "a.png"),
        (b"RIFF....WEBPVP8 ", "a.png"),
        (&whole[..whole.len() / 3], "a.png"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        says(decode::file(&path), &["a.png", part]);
    }
}

/// A pipe would keep the reader waiting.
#[cfg(unix)]
#[test]
fn pipes_and_devices_are_no_images() {
    let dir = tempfile::tempdir().unwrap();
    let (pipe, device) = (dir.path().join("pipe.png"), dir.path().join("device.png"));
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    std::os::unix::fs::symlink("/dev/zero", &device).unwrap();
    for path in [&pipe, &device] {
        let name = path.file_name().unwrap().to_str().unwrap();
        says(decode::file(path), &[name, "a pipe or a device"]);
        says(Decoder::default().file_size(path), &[name, "a pipe or a device"]);
    }
    says(decode::file(dir.path()), &["it is a folder, expected an image file"]);
    // A link to an image is one.
    let link = dir.path().join("link.png");
    std::os::unix::fs::symlink(fixture("images/grey.png"), &link).unwrap();
    assert_eq!(decode::file(&link).unwrap(), image("grey.png"));
}

#[test]
fn bilinear_without_antialiasing_is_pytorchs_unrounded() {
    for (name, side) in [("37x23_16", 16), ("5x9_24", 24), ("16x16_21", 21), ("64x50_7", 7)] {
        let stored = std::fs::read(fixture(&format!("images/resize_{name}.f32"))).unwrap();
        let expected = stored
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        let found = Resize::Bilinear
            .apply(&image(&format!("resize_{name}.png")), side, None)
            .unwrap();
        assert_eq!(found.len(), 3 * side * side);
        let worst = found
            .iter()
            .zip(expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1e-3, "{name}: {worst}");
        assert!(found.iter().any(|value| value.fract() != 0.0), "{name} is rounded");
    }
}

#[test]
fn antialiased_resizing_and_the_central_crop_are_pillows() {
    for (name, side) in [("61x83_28", 28), ("90x47_21", 21)] {
        let source = image(&format!("crop_{name}.png"));
        for (how, tolerance) in [
            ("crop", 0.0),
            ("bilinear-antialias", 0.0),
            ("bicubic", 0.0),
            ("lanczos", 0.0),
        ] {
            let file = if how == "crop" { "expected" } else { how };
            let expected = image(&format!("crop_{name}.{file}.png"));
            let found = how.parse::<Resize>().unwrap().apply(&source, side, None).unwrap();
            for (at, pixel) in expected.pixels().enumerate() {
                for channel in 0..3 {
                    let difference = (found[channel * side * side + at] - f32::from(pixel[channel])).abs();
                    assert!(difference <= tolerance, "{name} {how}: {difference}");
                }
            }
        }
    }
    says("area".parse::<Resize>(), &["'area'", "bilinear, bilinear-antialias"]);
}

#[test]
fn training_crops_are_random_mirrored_and_repeatable() {
    // Every column has its own value: a crop tells its place and whether it is mirrored.
    let source = RgbImage::from_fn(40, 32, |x, y| image::Rgb([6 * x as u8, 8 * y as u8, 0]));
    let (mut mirrored, mut places) = (0, std::collections::BTreeSet::new());
    for seed in 0..200 {
        let crop = Resize::Crop.apply(&source, 28, Some(seed)).unwrap();
        assert_eq!(crop, Resize::Crop.apply(&source, 28, Some(seed)).unwrap());
        let (left, right, top) = (crop[0], crop[27], crop[28 * 28]);
        mirrored += usize::from(left > right);
        places.insert((left.min(right) as i32, top as i32));
    }
    assert!((70..130).contains(&mirrored), "{mirrored}");
    // 13 columns and 5 rows to start from.
    assert!(places.len() > 50 && places.len() <= 65, "{}", places.len());
    assert_eq!(places.iter().next(), Some(&(0, 0)));
    assert_eq!(places.iter().last().map(|place| place.0), Some(72));
}
