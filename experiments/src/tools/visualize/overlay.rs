//! Overlays of maps on images, and contact sheets: steps 5 and 6 of the list in `visualize`.

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use crate::tools::visualize::jet::jet;
use crate::tools::visualize::maps::extent;

/// White gap between the tiles of a sheet, pixels.
const GAP: u32 = 2;

/// A map (0 to 1) blended with an image of the same size: 0.6 of its JET colours plus 0.4 of the image, rescaled to 0
/// to 1.
pub fn overlay(map: &[f32], image: &RgbImage) -> RgbImage {
    let heat: Vec<[u8; 3]> = map.iter().map(|value| jet((255.0 * value) as u8)).collect();
    let (low, high) = extent(heat.iter().flatten().map(|byte| f32::from(*byte)));
    let range = if high > low { high - low } else { 1.0 };
    let mixed: Vec<f32> = heat
        .iter()
        .zip(image.pixels())
        .flat_map(|(heat, pixel)| {
            let mix = |c: usize| 0.6 * (f32::from(heat[c]) - low) / range + 0.4 * f32::from(pixel[c]) / 255.0;
            [mix(0), mix(1), mix(2)]
        })
        .collect();
    let (low, high) = extent(mixed.iter().copied());
    let range = if high > low { high - low } else { 1.0 };
    let bytes = mixed
        .iter()
        .map(|value| (255.0 * (value - low) / range).round() as u8)
        .collect();
    RgbImage::from_raw(image.width(), image.height(), bytes).unwrap_or_default()
}

/// The most pixels of a sheet: 0.8 GB.
const MOST: u64 = 1 << 28;

/// Refuses sheets that would fill the memory: of `columns` clusters and `rows` blocks, with tiles of `tile` pixels.
///
/// # Errors
/// Too many pixels.
pub fn check_sheet(columns: usize, rows: usize, tile: u32) -> Result<(), String> {
    let step = u64::from(tile + GAP);
    let tiles = (columns as u64 + 1).saturating_mul(rows as u64);
    let most = (MOST / tiles.max(1)).isqrt().saturating_sub(u64::from(GAP));
    match tiles.saturating_mul(step * step) <= MOST {
        true => Ok(()),
        false => Err(format!(
            "--tile {tile}: a sheet of {} x {rows} tiles would have more than {MOST} pixels; choose 1 to {most}",
            columns + 1
        )),
    }
}

/// A contact sheet: the input image, then one row of `overlays` per block, each tile `tile` pixels wide.
pub fn sheet(image: &RgbImage, rows: &[Vec<RgbImage>], tile: u32) -> RgbImage {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let step = tile + GAP;
    let mut sheet = RgbImage::from_pixel(
        (columns + 1) * step - GAP,
        rows.len() as u32 * step - GAP,
        Rgb([255; 3]),
    );
    // Small images are enlarged by repeating pixels, large ones are smoothly reduced.
    let scaled = |image: &RgbImage| {
        let filter = if image.width() < tile {
            FilterType::Nearest
        } else {
            FilterType::Triangle
        };
        imageops::resize(image, tile, tile, filter)
    };
    imageops::replace(&mut sheet, &scaled(image), 0, 0);
    for (y, row) in rows.iter().enumerate() {
        for (x, image) in row.iter().enumerate() {
            let place = (i64::from((x as u32 + 1) * step), i64::from(y as u32 * step));
            imageops::replace(&mut sheet, &scaled(image), place.0, place.1);
        }
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_that_would_fill_the_memory_is_refused() {
        assert!(check_sheet(16, 12, 64).is_ok());
        let message = check_sheet(1024, 24, 4096).unwrap_err();
        assert!(
            message.contains("--tile 4096") && message.ends_with("choose 1 to 102"),
            "{message}"
        );
        assert!(check_sheet(1024, 24, 102).is_ok() && check_sheet(1024, 24, 103).is_err());
    }
}
