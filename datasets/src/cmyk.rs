//! CMYK as RGB, with the arithmetic of Pillow's `convert("RGB")`.

/// Replaces pixels of four bytes by pixels of three, in place: (1 - ink)(1 - black).
pub(crate) fn to_rgb(pixels: &mut Vec<u8>) {
    let count = pixels.len() / 4;
    for index in 0..count {
        let white = 255 - u32::from(pixels[4 * index + 3]);
        for channel in 0..3 {
            let product = u32::from(pixels[4 * index + channel]) * white + 128;
            let ink = (product + (product >> 8)) >> 8;
            pixels[3 * index + channel] = (white - ink) as u8;
        }
    }
    pixels.truncate(3 * count);
}

#[cfg(test)]
mod tests {
    #[test]
    fn inks_and_black_darken() {
        let mut pixels = vec![
            0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 255, 55, 10, 20, 30, 255, 100, 150, 200, 50,
        ];
        super::to_rgb(&mut pixels);
        assert_eq!(pixels, [255, 255, 255, 0, 255, 255, 200, 200, 0, 0, 0, 0, 125, 84, 44]);
    }
}
