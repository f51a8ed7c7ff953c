//! Exponential, tanh and the normal distribution for f32, without branches or calls, so that the compiler vectorizes loops
//! over them.

/// Coefficients of Abramowitz and Stegun, formula 7.1.26, for the complementary error function.
const A: [f32; 5] = [0.254_829_6, -0.284_496_74, 1.421_413_7, -1.453_152, 1.061_405_4];
/// Their p, over √2 because the argument here is x and not x/√2.
const P: f32 = 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2;

/// (Φ(x), exp(-x²/2)); absolute errors below 3e-7.
#[inline(always)]
pub fn cdf_and_gaussian(x: f32) -> (f32, f32) {
    let away = x.abs();
    let gaussian = exp_of_negative(-0.5 * away * away);
    let t = 1.0 / (1.0 + P * away);
    let poly = ((((A[4] * t + A[3]) * t + A[2]) * t + A[1]) * t + A[0]) * t;
    let tail = 0.5 * poly * gaussian;
    (if x > 0.0 { 1.0 - tail } else { tail }, gaussian)
}

/// exp(x) for x ≤ 0, relative error below 3e-7; below -87 it stays at about 1e-38.
#[inline(always)]
pub fn exp_of_negative(x: f32) -> f32 {
    // Adding 1.5·2²³ rounds to an integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Not `max`, which would turn NaN into -87.
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = x - whole * LN2_HIGH - whole * LN2_LOW;
    // Taylor series to the sixth order on [-ln2/2, ln2/2].
    let series = 1.0 / 720.0 * rest + 1.0 / 120.0;
    let series = series * rest + 1.0 / 24.0;
    let series = series * rest + 1.0 / 6.0;
    let series = series * rest + 0.5;
    let series = (series * rest + 1.0) * rest + 1.0;
    // 2^whole by its exponent bits: x ≥ -87 keeps it a normal number.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    series * power
}

/// tanh(x), absolute error below 3e-7.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let e = exp_of_negative(-2.0 * x.abs());
    ((1.0 - e) / (1.0 + e)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stated_errors_hold() {
        let (mut exp_error, mut cdf_error) = (0.0f64, 0.0f64);
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            exp_error = exp_error.max((f64::from(exp_of_negative(x)) - exact).abs() / exact);
        }
        for i in -120_000..=120_000 {
            let x = i as f32 * 1e-4;
            let exact = 0.5 * libm::erfc(-f64::from(x) * std::f64::consts::FRAC_1_SQRT_2);
            cdf_error = cdf_error.max((f64::from(cdf_and_gaussian(x).0) - exact).abs());
        }
        assert!(exp_error < 3e-7, "{exp_error:e}");
        assert!(cdf_error < 3e-7, "{cdf_error:e}");
        assert!(cdf_and_gaussian(f32::NAN).0.is_nan() && exp_of_negative(f32::NAN).is_nan());
        assert_eq!(cdf_and_gaussian(f32::INFINITY).0, 1.0);
    }
}
