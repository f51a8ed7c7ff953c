//! Splits of labelled data that has none: determined by the data alone, the same on every machine.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// The seed of every split.
const SEED: u64 = 0;

/// Removes one in `parts` (rounded up) of `items`, chosen at random; both parts keep their order.
pub fn take<T>(items: &mut Vec<T>, parts: usize) -> Vec<T> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.shuffle(&mut StdRng::seed_from_u64(SEED));
    let mut chosen = vec![false; items.len()];
    for index in &order[..items.len().div_ceil(parts)] {
        chosen[*index] = true;
    }
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    for (item, chosen) in items.drain(..).zip(chosen) {
        if chosen { taken.push(item) } else { left.push(item) }
    }
    *items = left;
    taken
}

/// Same as [`take`], but separately for each label, so that every label with at least two items is in both parts.
pub fn take_of_each<T>(items: &mut Vec<(T, usize)>, parts: usize) -> Vec<(T, usize)> {
    let labels = items.iter().map(|(_, label)| label + 1).max().unwrap_or(0);
    let mut by_label: Vec<Vec<T>> = (0..labels).map(|_| Vec::new()).collect();
    for (item, label) in items.drain(..) {
        by_label[label].push(item);
    }
    let mut taken = Vec::new();
    for (label, mut of_label) in by_label.into_iter().enumerate() {
        taken.extend(take(&mut of_label, parts).into_iter().map(|item| (item, label)));
        items.extend(of_label.into_iter().map(|item| (item, label)));
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_each_label_is_taken_and_the_rest_is_left() {
        let all: Vec<(usize, usize)> = (0..57).map(|i| (i, i % 3)).collect();
        let mut left = all.clone();
        let taken = take_of_each(&mut left, 10);
        assert_eq!((taken.len(), left.len()), (6, 51));
        for label in 0..3 {
            assert_eq!(taken.iter().filter(|(_, of)| *of == label).count(), 2);
        }
        let mut both = [taken.clone(), left.clone()].concat();
        both.sort_unstable();
        assert_eq!(both, all);
        let mut again = all.clone();
        assert_eq!(take_of_each(&mut again, 10), taken);
    }
}
