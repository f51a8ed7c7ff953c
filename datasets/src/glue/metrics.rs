//! GLUE's metrics, as scikit-learn and SciPy define them.

/// Fraction of equal pairs; `None` for no pairs.
///
/// # Panics
/// Lists of different length.
pub fn accuracy(predicted: &[usize], gold: &[usize]) -> Option<f64> {
    assert_eq!(predicted.len(), gold.len(), "one prediction for each text");
    let right = predicted.iter().zip(gold).filter(|(a, b)| a == b).count();
    (!gold.is_empty()).then(|| right as f64 / gold.len() as f64)
}

/// F1 of class `positive`: the harmonic mean of precision and recall; 0 if the class occurs in neither the predictions
/// nor the answers.
///
/// # Panics
/// Lists of different length.
pub fn f1(predicted: &[usize], gold: &[usize], positive: usize) -> f64 {
    assert_eq!(predicted.len(), gold.len(), "one prediction for each text");
    let count = |labels: &[usize]| labels.iter().filter(|label| **label == positive).count();
    let hits = predicted
        .iter()
        .zip(gold)
        .filter(|(a, b)| a == b && **a == positive)
        .count();
    match count(predicted) + count(gold) {
        0 => 0.0,
        all => 2.0 * hits as f64 / all as f64,
    }
}

/// Matthews correlation for any number of classes (Gorodkin 2004); 0 if all predictions or all answers are the same.
///
/// # Panics
/// Lists of different length.
pub fn matthews(predicted: &[usize], gold: &[usize]) -> f64 {
    assert_eq!(predicted.len(), gold.len(), "one prediction for each text");
    let classes = predicted.iter().chain(gold).max().map_or(0, |largest| largest + 1);
    let counts = |labels: &[usize]| {
        let mut counts = vec![0.0; classes];
        labels.iter().for_each(|label| counts[*label] += 1.0);
        counts
    };
    let (of_predicted, of_gold) = (counts(predicted), counts(gold));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let all = gold.len() as f64;
    let right = predicted.iter().zip(gold).filter(|(a, b)| a == b).count() as f64;
    let covariance = |a: &[f64], b: &[f64]| all * all - product(a, b);
    let spread = covariance(&of_predicted, &of_predicted) * covariance(&of_gold, &of_gold);
    match spread > 0.0 {
        true => (all * right - product(&of_predicted, &of_gold)) / spread.sqrt(),
        false => 0.0,
    }
}

/// Pearson correlation; `None` for fewer than two pairs, if one side is constant or if a value is not finite.
///
/// # Panics
/// Lists of different length.
pub fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "one prediction for each text");
    if a.len() < 2 || a.iter().chain(b).any(|value| !value.is_finite()) {
        return None;
    }
    let constant = |values: &[f64]| values.iter().all(|value| *value == values[0]);
    if constant(a) || constant(b) {
        return None;
    }
    let centred = |values: &[f64]| -> Vec<f64> {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| value - mean).collect()
    };
    let (a, b) = (centred(a), centred(b));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let correlation = product(&a, &b) / (product(&a, &a).sqrt() * product(&b, &b).sqrt());
    Some(correlation.clamp(-1.0, 1.0))
}

/// Spearman rank correlation, in which equal values share the mean of their ranks; `None` in the same cases as
/// [`pearson`].
///
/// # Panics
/// Lists of different length.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    match a.iter().chain(b).all(|value| value.is_finite()) {
        true => pearson(&ranks(a), &ranks(b)),
        false => None,
    }
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|i, j| values[*i].total_cmp(&values[*j]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    while first < order.len() {
        let equal = order[first..]
            .iter()
            .take_while(|at| values[**at] == values[order[first]])
            .count();
        let rank = first as f64 + (equal + 1) as f64 / 2.0;
        order[first..first + equal].iter().for_each(|at| ranks[*at] = rank);
        first += equal;
    }
    ranks
}
