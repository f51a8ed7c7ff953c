//! Parquet files that unpack, or are decoded, to far more than they are.

use std::io::Write;

use datasets::language::records;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::forged::{self, Page};
use crate::says;

/// What reading the file of these pages says.
fn fails(codec: u8, repetition: u8, rows: i64, pages: &[Page], parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    forged::write(&path, codec, repetition, rows, pages);
    says(records::read(&path), &[&["a.parquet"][..], parts].concat());
}

fn plain(texts: &[&str]) -> Vec<u8> {
    let text = |text: &&str| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    texts.iter().flat_map(text).collect()
}

fn page(kind: u8, values: i64, encoding: u8, body: &[u8]) -> Page<'_> {
    Page {
        kind,
        values,
        encoding,
        size: body.len() as i64,
        body,
    }
}

#[test]
fn a_forged_file_is_read_if_it_says_the_truth() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    let dictionary = plain(&["one", "two"]);
    // A run of three times the second.
    let runs = [1, 6, 1];
    let (first, second) = (page(2, 2, 0, &dictionary), page(0, 3, 8, &runs));
    forged::write(&path, 0, 0, 3, &[first, second]);
    let texts: Vec<_> = records::read(&path).unwrap();
    let texts: Vec<_> = texts.iter().map(|row| row.required("text").unwrap()).collect();
    assert_eq!(texts, ["two", "two", "two"]);
    let body = plain(&["a", "bc"]);
    let packed = gzip(&body);
    let packed = Page {
        size: body.len() as i64,
        ..page(0, 2, 0, &packed)
    };
    forged::write(&path, 2, 0, 2, &[packed]);
    assert_eq!(records::read(&path).unwrap()[1].required("text").unwrap(), "bc");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_page_that_announces_too_much_is_refused_in_every_compression() {
    // Snappy, gzip, Brotli, LZ4 in two forms, and Zstandard.
    for codec in [1, 2, 4, 5, 6, 7] {
        let page = Page {
            size: i32::MAX.into(),
            ..page(0, 1, 0, b"small")
        };
        let parts = [
            "a page of column 'text' announces 2147483647 bytes unpacked",
            "row_group_size",
        ];
        fails(codec, 0, 1, &[page], &parts);
    }
}

#[test]
fn a_page_that_holds_more_than_it_announces_is_refused() {
    let packed = gzip(&vec![0; 32 << 20]);
    for size in [0, 100, 32 << 19] {
        let page = Page {
            size,
            ..page(0, 1, 0, &packed)
        };
        let part = match size {
            0 => "damaged",
            _ => "column 'text': a page cannot be unpacked, it announces",
        };
        fails(2, 0, 1, &[page], &[part]);
    }
}

#[test]
fn a_short_page_that_stands_for_many_long_texts_is_refused() {
    let long = "x".repeat(1 << 20);
    let dictionary = plain(&[&long]);
    // A run of 100,000 times the first text: 100 GB.
    let runs = [1, 0xC0, 0x9A, 0x0C, 0];
    let pages = [page(2, 1, 0, &dictionary), page(0, 100_000, 8, &runs)];
    let too_much = "column 'text' brings its values to more than 1073741824 bytes";
    fails(0, 0, 100_000, &pages, &[too_much]);
    // The same in one row of a list, which is decoded as a whole.
    let pages = [page(2, 1, 0, &dictionary), page(0, 20_000_000, 8, &runs)];
    fails(0, 2, 1, &pages, &[too_much]);
    // Each text begins with 8192 bytes more of the one before: 4 GB in 1024 texts, in blocks of 128 without a bit each.
    let head = [0x80, 1, 1, 0x80, 8, 0];
    let prefixes = [&head[..], &[0x80, 0x80, 1, 0].repeat(8)].concat();
    let suffixes = [&head[..], &[0, 0].repeat(8)].concat();
    let body = [prefixes, suffixes].concat();
    fails(0, 0, 1024, &[page(0, 1024, 7, &body)], &[too_much]);
}

#[test]
fn numbers_that_the_file_cannot_hold_are_refused() {
    fails(
        0,
        0,
        1 << 50,
        &[page(0, 1, 0, b"")],
        &["announces 1125899906842624 rows"],
    );
    let most = i64::from(i32::MAX);
    fails(0, 0, 1, &[page(2, most, 0, b"\0\0\0\0")], &["column 'text'", "damaged"]);
    // Lengths of 2^40 texts.
    let lengths = [0x80, 1, 4, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 0];
    for encoding in [6, 7] {
        let parts = ["a page of 1 values announces 1099511627776 lengths"];
        fails(0, 0, 1, &[page(0, 1, encoding, &lengths)], &parts);
    }
    // The crate would make up nulls.
    let body = plain(&["a", "b"]);
    fails(
        0,
        0,
        5,
        &[page(0, 2, 0, &body)],
        &["column 'text': it ends after 2 of 5 rows"],
    );
}
