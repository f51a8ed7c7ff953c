//! The parts of a fused layer that an adapter has: joined, or each on its own block of the layer.

use std::collections::BTreeMap;

use serde_json::json;
use wegeft::LoraInit;
use wegeft::storage::{Stored, Tensors, collect};

use super::join::{above_each_other, block_diagonal, filled, row_norms};
use super::{PREFIX, Translation};
use crate::import::names;

/// What an adapter has of a part of a fused module.
pub(super) struct Part {
    /// Their name of it.
    pub theirs: String,
    /// Tensors by the end of their names.
    pub tensors: BTreeMap<String, Stored>,
}

/// Those parts of a fused module that an adapter has.
pub(super) type Parts = BTreeMap<usize, Part>;

/// Names of the `of` parts of a fused layer.
pub(super) fn blocks(of: usize) -> &'static [&'static str] {
    match of {
        3 => &["q", "k", "v"],
        _ => &["gate", "up"],
    }
}

/// Ends of names of tensors of which one for the whole layer can be made of those of its parts.
const JOINED: [&str; 6] = [
    "lora_A.weight",
    "lora_B.weight",
    "lora_B.bias",
    "lora_magnitude_vector",
    "lora_magnitude_vector.weight",
    "ia3_l",
];

impl Translation<'_> {
    /// Puts the scale of a part's LoRA into its B: the fused factors have one scale for all parts.
    fn scale(&self, part: &mut Part) -> Result<(), String> {
        let rank = match part.tensors.get("lora_B.weight").map(|factor| &factor.shape[..]) {
            None => return Ok(()),
            Some([_, rank]) if *rank > 0 => *rank as f64,
            Some(shape) => return Err(format!("lora_B of '{}' has shape {shape:?}", part.theirs)),
        };
        let scale = self.alpha(&part.theirs)? / if self.rslora() { rank.sqrt() } else { rank };
        for suffix in ["lora_B.weight", "lora_B.bias"] {
            for value in part.tensors.get_mut(suffix).into_iter().flat_map(|b| &mut b.values) {
                *value = (f64::from(*value) * scale) as f32;
            }
        }
        Ok(())
    }

    /// True if the tensors of the parts cannot be those of the whole layer: the method is neither LoRA nor IA3, IA3 scales a
    /// part's input, or LoRA started from each part's own weight.
    pub(super) fn stays_apart(&self, parts: &Parts) -> bool {
        let init = self.given.get("init_lora_weights").cloned();
        let init = init.and_then(|init| LoraInit::try_from(init).ok());
        let reads_weight = init.is_some_and(|init| init.reads_weight());
        let mut all = parts.values().flat_map(|part| &part.tensors);
        all.any(|(suffix, tensor)| match suffix.as_str() {
            "weight" | "bias" => false,
            "ia3_l" => tensor.shape.first() == Some(&1),
            joined if JOINED.contains(&joined) => reads_weight,
            _ => true,
        })
    }

    /// Moves the parts' adapters into `tensors`, each under the name of its block of the layer. The layer's own weight and
    /// bias stay in `parts`.
    pub(super) fn put_apart(
        &mut self,
        module: &str,
        of: usize,
        parts: &mut Parts,
        tensors: &mut Tensors,
    ) -> Result<(), String> {
        let blocks = blocks(of);
        let mut adapted = Vec::new();
        for (index, part) in parts {
            let block = blocks[*index];
            let ours = format!("{module}.{block}");
            let is_own = |suffix: &str| matches!(suffix, "weight" | "bias");
            let (own, adapter): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut part.tensors)
                .into_iter()
                .partition(|(suffix, _)| is_own(suffix));
            part.tensors = own;
            if !adapter.is_empty() {
                adapted.push(block);
            }
            for (suffix, tensor) in adapter {
                self.note(&part.theirs, &ours, &suffix, &tensor)?;
                tensors.insert(format!("{PREFIX}{ours}.{suffix}"), tensor);
            }
        }
        self.apart
            .push(json!({ "module": module, "blocks": blocks, "adapt": adapted }));
        Ok(())
    }

    /// Notes the rank of a fused LoRA, the sum of its parts' ranks, with an alpha that makes its scale 1; the parts' own scales
    /// go into their factors.
    pub(super) fn join_ranks(&mut self, module: &str, parts: &mut Parts) -> Result<(), String> {
        let mut rank = 0;
        for part in parts.values_mut() {
            self.scale(part)?;
            let factor = part.tensors.get("lora_A.weight");
            rank += factor.and_then(|factor| factor.shape.first().copied()).unwrap_or(0);
        }
        if rank > 0 {
            let alpha = if self.rslora() {
                (rank as f64).sqrt()
            } else {
                rank as f64
            };
            self.ranks.insert(module.to_string(), json!(rank));
            self.alphas.insert(module.to_string(), json!(alpha));
        }
        Ok(())
    }

    /// The tensors of the parts of `module` as one. What the adapter does not have of a part is as if it were not adapted.
    pub(super) fn joined(
        &self,
        module: &str,
        suffix: &str,
        of: usize,
        found: &BTreeMap<usize, &Stored>,
    ) -> Option<Stored> {
        let own = |field: &str| self.base(&format!("{module}.{field}"));
        let all = |value: f32| Some(vec![value; of * found.values().next()?.values.len()]);
        match suffix {
            "lora_A.weight" => above_each_other(found.values().copied()),
            "lora_B.weight" => block_diagonal(of, found),
            "lora_B.bias" => filled(of, found, || all(0.0)),
            "lora_magnitude_vector" | "lora_magnitude_vector.weight" => {
                filled(of, found, || own("weight").map(|weight| row_norms(&weight)))
            }
            "ia3_l" => filled(of, found, || all(1.0)),
            "weight" | "bias" => filled(of, found, || own(suffix).map(|own| own.values)),
            _ => None,
        }
    }

    /// A parameter of the model, in PyTorch's orientation.
    fn base(&self, name: &str) -> Option<Stored> {
        let mut names = names(self.model);
        names.retain(|_, (_, found)| found == name);
        collect(self.model, &names).remove(name)
    }
}
