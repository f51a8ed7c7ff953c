//! Weighted sums of adapters as one LoRA adapter (PEFT's `add_weighted_adapter`).

use std::collections::BTreeMap;

use burn::module::{Module, ModuleDisplay};
use burn::tensor::Tensor;

use crate::adapters::Adapters;
use crate::error::AdapterError;
use crate::linalg::product_svd;
use crate::low_rank::LowRank;

/// How the weighted sum of low-rank residuals, `Σ wᵢ sᵢ Bᵢ Aᵢ`, is made one LoRA residual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combination {
    /// All A stacked and all B side by side: exact, and the ranks add up.
    Cat,
    /// `A = Σ ±√|wᵢ sᵢ| Aᵢ`, `B = Σ √|wᵢ sᵢ| Bᵢ`: keeps the rank, which all adapters must share, but B A also contains
    /// products of different adapters. Exact for a single adapter only. PEFT's default.
    Linear,
    /// The best approximation of the given rank in the Frobenius norm; by default the largest of the adapters' ranks.
    Svd {
        /// Rank of the result.
        rank: Option<usize>,
    },
}

impl<M: Module + ModuleDisplay> Adapters<M> {
    /// Adds the weighted sum of adapters as a LoRA adapter called `name`; the adapters can be of any low-rank methods.
    /// Modules that only some of them adapt get the sum of those. Weights may be negative.
    ///
    /// # Errors
    /// An unknown or taken name, no adapters, a weight that is not finite, a method that cannot be written as LoRA,
    /// different ranks with [`Combination::Linear`], more than one adapter with layers trained in full, or one with single
    /// tokens trained in full, which cannot be added.
    pub fn add_weighted(
        &mut self,
        name: &str,
        weights: &[(&str, f64)],
        combination: Combination,
    ) -> Result<(), AdapterError> {
        let refused = |name: &str, message: &str| AdapterError::Adapter {
            name: name.to_string(),
            message: message.to_string(),
        };
        self.check_name(name)?;
        let mut terms: BTreeMap<String, Vec<(f64, LowRank)>> = BTreeMap::new();
        let mut with_own = None;
        for (term, weight) in weights {
            let adapted = self.get(term)?;
            if !weight.is_finite() {
                return Err(refused(term, &format!("its weight {weight} is not a finite number")));
            }
            if !adapted.own_params().is_empty() && with_own.replace(*term).is_some() {
                return Err(refused(
                    term,
                    "it and another of these adapters have layers trained in full, which cannot be added; leave one of them out",
                ));
            }
            if adapted.config().targets.trainable_token_indices.is_some() {
                return Err(refused(
                    term,
                    "it has single tokens trained in full (trainable_token_indices), which cannot be added; leave it out",
                ));
            }
            for (module, low) in adapted.valid().low_rank()? {
                terms.entry(module).or_default().push((*weight, low));
            }
        }
        let base = match (with_own, weights.first()) {
            (Some(own), _) => self.get(own)?,
            (None, Some((first, _))) => self.get(first)?,
            (None, None) => return Err(refused(name, "a weighted sum needs at least one adapter")),
        };
        let mut factors = BTreeMap::new();
        for (module, terms) in terms {
            let sum = sum(&terms, combination).map_err(|message| refused(name, &format!("'{module}': {message}")))?;
            factors.insert(module, sum);
        }
        let sum = base.with_lora(&factors)?;
        self.put(name, sum);
        Ok(())
    }
}

fn sum(terms: &[(f64, LowRank)], combination: Combination) -> Result<LowRank, String> {
    let ranks: Vec<usize> = terms.iter().map(|(_, low)| low.a.dims()[0]).collect();
    let greatest = ranks.iter().copied().max().unwrap_or_default();
    match combination {
        Combination::Cat => Ok(cat(terms)),
        Combination::Linear if ranks.iter().any(|rank| *rank != greatest) => Err(format!(
            "Combination::Linear needs equal ranks, found {ranks:?}; use Cat or Svd"
        )),
        Combination::Linear => {
            let add = |side: fn(&LowRank) -> Tensor<2>, factor: fn(f64) -> f64| {
                let terms = terms.iter().map(|(w, low)| side(low).mul_scalar(factor(w * low.scale)));
                terms.reduce(|sum, term| sum + term)
            };
            let a = add(|low| low.a.clone(), |ws| ws.abs().sqrt().copysign(ws));
            let b = add(|low| low.b.clone(), |ws| ws.abs().sqrt());
            let (Some(a), Some(b)) = (a, b) else {
                return Err("a weighted sum needs at least one adapter".into());
            };
            Ok(LowRank { a, b, scale: 1.0 })
        }
        Combination::Svd { rank } => {
            let rank = rank.unwrap_or(greatest);
            if rank == 0 {
                return Err("rank is 0; choose at least 1".into());
            }
            let LowRank { a, b, .. } = cat(terms);
            let (u, s, vt) = product_svd(b, a, rank).ok_or("its factors are not finite")?;
            Ok(LowRank {
                a: vt,
                b: u * s.unsqueeze_dim::<2>(0),
                scale: 1.0,
            })
        }
    }
}

/// The weighted sum exactly, with the weights and scales in B.
fn cat(terms: &[(f64, LowRank)]) -> LowRank {
    let b = terms.iter().map(|(w, low)| low.b.clone().mul_scalar(w * low.scale));
    LowRank {
        a: Tensor::cat(terms.iter().map(|(_, low)| low.a.clone()).collect(), 0),
        b: Tensor::cat(b.collect(), 1),
        scale: 1.0,
    }
}
