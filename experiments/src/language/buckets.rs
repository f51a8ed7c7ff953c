//! A few sizes instead of all, for GPUs: they choose and compile kernels for the shapes that they meet, so that shapes should
//! repeat.

use burn::tensor::Device;

use crate::cli::device::computes_at_once;

/// The smallest size.
const LEAST: usize = 32;

/// The smallest of four sizes per doubling that is not below `count`: at most a fourth more, on average a tenth.
pub fn bucket(count: usize) -> usize {
    let step = (count.next_power_of_two() / 8).max(LEAST / 4);
    count.next_multiple_of(step).max(LEAST)
}

/// True if `device` is better off with [`bucket`] sizes.
pub fn wants_buckets(device: &Device) -> bool {
    !computes_at_once(device)
}

/// The size for `count` that suits `device`.
pub fn size_on(device: &Device, count: usize) -> usize {
    match wants_buckets(device) {
        true => bucket(count),
        false => count,
    }
}

#[cfg(test)]
mod tests {
    use super::bucket;

    #[test]
    fn sizes_are_few_and_not_much_larger() {
        let mut sizes: Vec<usize> = (1..=4096).map(bucket).collect();
        for (size, count) in sizes.iter().zip(1..) {
            assert!(
                *size >= count && (*size == 32 || *size * 4 <= count * 5),
                "{count}: {size}"
            );
        }
        assert_eq!(
            [1, 32, 33, 64, 65, 1000, 1025].map(bucket),
            [32, 32, 40, 64, 80, 1024, 1280]
        );
        sizes.dedup();
        assert_eq!(sizes.len(), 29);
    }
}
