//! Kinds of image files and ways of resizing, against Pillow, PyTorch and torchvision.

use datasets::{Decoder, Resize, decode};
use image::RgbImage;

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
    // Two JPEG decoders round differently.
    for (name, tolerance) in [("grey.jpg", 1), ("plain.jpg", 3), ("cmyk.jpg", 2)] {
        let difference = apart(&image(name), &image(&format!("{name}.rgb.png")));
        assert!(difference <= tolerance, "{name} {difference}");
    }
    let deep = image("deep.png");
    assert_eq!(deep.get_pixel(3, 2).0, [30, 30, 255 - 15 - 10]);
}

/// The file's pixels are Pillow's; decoders of lossy files round differently, by more where colours are stored smaller.
fn read_as_pillow(name: &str) {
    let path = fixture("image_kinds").join(name);
    let tolerance = match name {
        "full.jpg" | "motion.jpg" => 2,
        _ if name.ends_with(".jpg") => 3,
        "lossy.webp" => 1,
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
fn palettes_in_tiff_are_refused() {
    // The image crate does not read them.
    let message = decode::file(&fixture("image_kinds/palette.tif"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("palette.tif") && message.contains("RGBPalette"),
        "{message}"
    );
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
