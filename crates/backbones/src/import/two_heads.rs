//! The heads of a distilled model.

use wegeft::storage::{Stored, Tensors};

use crate::vit::{HeadPool, VitConfig};

/// The two heads, called `names`, of a distilled model: the mean of their logits is what the one head gives.
pub(super) fn two_heads(head: Tensors, config: &VitConfig, names: [&str; 2]) -> Tensors {
    let mut heads = Tensors::new();
    for (name, tensor) in head {
        let kind = name.trim_start_matches("head.").to_string();
        let halves = match (config.head_pool, kind.as_str()) {
            (Some(HeadPool::ClsDist), "weight") => halves(&tensor),
            _ => [tensor.clone(), tensor],
        };
        for (name, half) in names.iter().zip(halves) {
            heads.insert(format!("{name}.{kind}"), half);
        }
    }
    heads
}

/// The head over the CLS token alone of a head over it and the distillation token; `None` if it reads the latter too.
pub(super) fn cls_head(head: &Tensors) -> Option<Tensors> {
    let mut of_cls = head.clone();
    let weight = of_cls.get_mut("head.weight")?;
    let columns = weight.shape[1] / 2;
    let rows = || weight.values.chunks_exact(2 * columns);
    if rows().flat_map(|row| &row[columns..]).any(|value| *value != 0.0) {
        return None;
    }
    let values = rows().flat_map(|row| &row[..columns]).copied().collect();
    *weight = Stored {
        shape: vec![weight.shape[0], columns],
        values,
    };
    Some(of_cls)
}

/// The left and the right half of the columns, each times 2.
fn halves(tensor: &Stored) -> [Stored; 2] {
    let columns = tensor.shape[1] / 2;
    [0, 1].map(|half| Stored {
        shape: vec![tensor.shape[0], columns],
        values: (tensor.values.chunks_exact(2 * columns))
            .flat_map(|row| {
                row[half * columns..(half + 1) * columns]
                    .iter()
                    .map(|value| 2.0 * value)
            })
            .collect(),
    })
}
