//! The JET colour map of 8-bit values, by formula.

/// Red, green and blue of `value`: trapezoids of slope 4 around 3/4, 1/2 and 1/4 of the range, as MATLAB and OpenCV
/// draw them.
pub fn jet(value: u8) -> [u8; 3] {
    let x = f32::from(value) / 255.0;
    let channel = |centre: f32| {
        let height = (1.5 - 4.0 * (x - centre).abs()).clamp(0.0, 1.0);
        (255.0 * height).round() as u8
    };
    [channel(0.75), channel(0.5), channel(0.25)]
}
