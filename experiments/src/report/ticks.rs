//! Where the axes of a plot have their ticks, and what these say.

use std::ops::Range;

use plotters::coord::combinators::{BindKeyPoints, WithKeyPoints};
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;

/// An axis with ticks at chosen places. (`WithKeyPoints` alone can only be drawn for types with a default format, which f64 is not.)
pub struct Ticked(WithKeyPoints<RangedCoordf64>);

impl Ticked {
    /// `range` with ticks at `places`.
    pub fn new(range: Range<f64>, places: Vec<f64>) -> Self {
        Self(range.with_key_points(places))
    }
}

impl Ranged for Ticked {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.0.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        self.0.key_points(hint)
    }

    fn range(&self) -> Range<f64> {
        self.0.range()
    }
}

/// Multiples of 1, 2 or 5 times a power of ten: three to nine of them, none if `range` is empty.
pub fn linear(range: &Range<f64>) -> Vec<f64> {
    let extent = range.end - range.start;
    if !(extent > 0.0 && extent.is_finite()) {
        return Vec::new();
    }
    let power = 10f64.powf((extent / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = step.into_iter().find(|step| extent / step <= 8.0).unwrap_or(extent);
    let first = (range.start / step).ceil();
    let count = ((range.end / step).floor() - first) as usize;
    (0..=count).map(|index| (first + index as f64) * step).collect()
}

/// Decimal logarithms of 1, 2 and 5 times the powers of ten within `range`, which holds logarithms too; of powers alone if that is
/// enough.
pub fn logarithmic(range: &Range<f64>) -> Vec<f64> {
    if !(range.start.is_finite() && range.end.is_finite()) {
        return Vec::new();
    }
    let of = |factors: &'static [f64]| -> Vec<f64> {
        let powers = range.start.floor() as i32..=range.end.ceil() as i32;
        powers
            .flat_map(|power| factors.iter().map(move |factor| f64::from(power) + factor.log10()))
            .filter(|tick| range.contains(tick))
            .collect()
    };
    match of(&[1.0]) {
        powers if powers.len() > 3 => powers,
        _ => of(&[1.0, 2.0, 5.0]),
    }
}

/// A number of few digits as a reader writes it: 0.02, 5, 200, 20k, 5M.
pub fn label(value: f64) -> String {
    let size = value.abs();
    // A little below the limit, since 10 to a logarithm is not exact.
    let (value, unit) = match size * (1.0 + 1e-9) {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let rounded = format!("{value:.6}");
    let shown = rounded.trim_end_matches('0').trim_end_matches('.');
    match shown {
        "-0" => "0".into(),
        shown => format!("{shown}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: Vec<f64>) -> Vec<String> {
        ticks.into_iter().map(|tick| label(10f64.powf(tick))).collect()
    }

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        assert_eq!(linear(&(83.0..127.0)), [90.0, 100.0, 110.0, 120.0]);
        let small = linear(&(-0.1..0.3));
        assert!(
            small.len() >= 4 && small.iter().all(|tick| (-0.1..=0.3).contains(tick)),
            "{small:?}"
        );
        assert!(linear(&(1.0..1.0)).is_empty() && linear(&(0.0..f64::INFINITY)).is_empty());
    }

    #[test]
    fn logarithmic_ticks_are_powers_of_ten_or_lie_between_them() {
        assert_eq!(labels(logarithmic(&(3.2..4.5))), ["2000", "5000", "10k", "20k"]);
        assert_eq!(labels(logarithmic(&(-2.1..6.1))).first().unwrap(), "0.01");
        assert_eq!(logarithmic(&(-2.1..6.1)).len(), 9);
        assert!(logarithmic(&(f64::NEG_INFINITY..1.0)).is_empty());
    }

    #[test]
    fn numbers_are_written_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.05, "0.05"),
            (9999.0, "9999"),
            (10f64.powf(4.0), "10k"),
            (3.5e6, "3.5M"),
            (-20.0, "-20"),
            (2e9, "2G"),
            (1e-9, "0"),
        ] {
            assert_eq!(label(value), text);
        }
    }
}
