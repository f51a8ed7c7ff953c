//! Tensors of the parts of a fused layer as one.

use std::collections::BTreeMap;

use wegeft::storage::Stored;

/// `[a, d]`, `[b, d]`, … to `[a + b + …, d]`; vectors likewise.
pub(super) fn above_each_other<'a>(parts: impl Iterator<Item = &'a Stored>) -> Option<Stored> {
    let parts: Vec<&Stored> = parts.collect();
    let mut shape = parts.first()?.shape.clone();
    if shape.is_empty()
        || parts
            .iter()
            .any(|part| part.shape.len() != shape.len() || part.shape[1..] != shape[1..])
    {
        return None;
    }
    shape[0] = parts.iter().map(|part| part.shape[0]).sum();
    Some(Stored {
        shape,
        values: parts.iter().flat_map(|part| part.values.iter().copied()).collect(),
    })
}

/// Places the parts' `[d, r]` factors into one `[of·d, Σr]`, each in its own rows.
pub(super) fn block_diagonal(of: usize, parts: &BTreeMap<usize, &Stored>) -> Option<Stored> {
    let width = *parts.values().next()?.shape.first()?;
    if parts
        .values()
        .any(|part| part.shape.len() != 2 || part.shape[0] != width)
    {
        return None;
    }
    let columns: usize = parts.values().map(|part| part.shape[1]).sum();
    let mut values = vec![0.0; of * width * columns];
    let mut first = 0;
    for (index, part) in parts {
        let rank = part.shape[1];
        for (row, source) in part.values.chunks_exact(rank.max(1)).enumerate() {
            let at = (index * width + row) * columns + first;
            values[at..at + rank].copy_from_slice(source);
        }
        first += rank;
    }
    Some(Stored {
        shape: vec![of * width, columns],
        values,
    })
}

/// Vectors of some of the `of` parts in one, the others' elements being those of `rest`.
pub(super) fn filled(
    of: usize,
    parts: &BTreeMap<usize, &Stored>,
    rest: impl Fn() -> Option<Vec<f32>>,
) -> Option<Stored> {
    let first = parts.values().next()?;
    if first.shape.is_empty() || parts.values().any(|part| part.shape != first.shape) {
        return None;
    }
    let width = first.values.len();
    let mut values = match parts.len() == of {
        true => vec![0.0; of * width],
        false => rest()?,
    };
    if values.len() != of * width {
        return None;
    }
    for (index, part) in parts {
        values[index * width..(index + 1) * width].copy_from_slice(&part.values);
    }
    let mut shape = first.shape.clone();
    shape[0] *= of;
    Some(Stored { shape, values })
}

/// The norm of each row.
pub(super) fn row_norms(weight: &Stored) -> Vec<f32> {
    let columns = weight.shape.last().copied().unwrap_or(1).max(1);
    let norm = |row: &[f32]| row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
    weight.values.chunks_exact(columns).map(norm).collect()
}
