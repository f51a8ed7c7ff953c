//! pass@k: the chance that one of k samples passes.

/// The unbiased estimate from `n` samples of which `c` passed (arXiv 2107.03374, equation 1); `None` with fewer than `k`.
pub fn pass_at(n: usize, c: usize, k: usize) -> Option<f64> {
    if n < k {
        return None;
    }
    if n - c < k {
        return Some(1.0);
    }
    let all_fail: f64 = (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product();
    Some(1.0 - all_fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 - C(n - c, k) / C(n, k).
    fn by_counting(n: usize, c: usize, k: usize) -> f64 {
        let choose = |n: usize| {
            (0..k)
                .map(|i| (n as f64 - i as f64) / (i as f64 + 1.0))
                .product::<f64>()
        };
        1.0 - choose(n - c).max(0.0) / choose(n)
    }

    #[test]
    fn the_estimate_is_the_share_of_choices_with_one_that_passes() {
        for (n, c, k) in [(5, 2, 1), (5, 2, 5), (10, 3, 4), (200, 7, 100), (5, 0, 3), (5, 5, 1)] {
            let found = pass_at(n, c, k).unwrap();
            assert!((found - by_counting(n, c, k)).abs() < 1e-9, "{n} {c} {k}: {found}");
        }
        assert!((pass_at(5, 2, 1).unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(pass_at(5, 5, 10), None);
    }
}
