//! VeRA (Vector-based Random Matrix Adaptation, Kopiczko et al. 2024, arXiv 2310.11454):
//! `y = x W + b ∘ ((d ∘ (x Aᵀ)) Bᵀ)`. A and B are random, frozen and shared by all sites; only the vectors d of
//! `[r]` and b of `[d_out]` are trained. d starts at 0.1 and b at 0, as in the paper (section 4) and in PEFT.
//!
//! A, `[r, largest d_in]`, and B, `[largest d_out, r]`, exist once; smaller sites use their first columns and rows. They are
//! drawn from `projection_prng_key` as PEFT draws them on the CPU, so that adapters saved without them
//! (`save_projection: false`) load here too.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use rand_mt::Mt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::check_probability;
use super::orthonormal::uniform;
use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Init, Spec};
use crate::group::Group;
use crate::low_rank::LowRank;
use crate::method::{self, Method};
use crate::site::{Site, SiteKind};
use crate::tensor::{cast, dropped, dropped_inputs, for_products};

/// Settings of VeRA; names and defaults as in PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VeraConfig {
    /// Rank of A and B: higher than LoRA's, since it costs only r trainable parameters per site.
    pub r: usize,
    /// Start of d.
    #[serde(default = "d_initial")]
    pub d_initial: f64,
    /// Seed of A and B.
    #[serde(default)]
    pub projection_prng_key: u32,
    /// Whether A and B are saved with the adapter.
    #[serde(default = "saved")]
    pub save_projection: bool,
    /// Dropout on the input of A, in training.
    #[serde(rename = "vera_dropout", default)]
    pub dropout: f64,
}

fn d_initial() -> f64 {
    0.1
}

fn saved() -> bool {
    true
}

impl VeraConfig {
    /// Rank `r` and the paper's settings.
    pub fn new(r: usize) -> Self {
        Self {
            r,
            d_initial: d_initial(),
            projection_prng_key: 0,
            save_projection: saved(),
            dropout: 0.0,
        }
    }

    /// Sets the start of d.
    pub fn with_d_initial(mut self, d_initial: f64) -> Self {
        self.d_initial = d_initial;
        self
    }

    /// Sets the seed of A and B.
    pub fn with_projection_prng_key(mut self, key: u32) -> Self {
        self.projection_prng_key = key;
        self
    }

    /// Sets whether A and B are saved with the adapter.
    pub fn with_save_projection(mut self, save: bool) -> Self {
        self.save_projection = save;
        self
    }

    /// Sets the dropout on the input of A.
    pub fn with_dropout(mut self, p: f64) -> Self {
        self.dropout = p;
        self
    }
}

impl Method for VeraConfig {
    fn name(&self) -> &'static str {
        "VERA"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        check_probability("vera_dropout", self.dropout)?;
        if self.r == 0 {
            return Err(AdapterError::bad_field("r", "is 0; set it to 1 or more"));
        }
        if !self.d_initial.is_finite() {
            return Err(AdapterError::bad_field(
                "d_initial",
                format!("{} is not a finite number", self.d_initial),
            ));
        }
        Ok(Group::each(sites))
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        vec![
            Spec::new("lambda_b", "vera_lambda_b", [group.site().d_out]),
            Spec::new("lambda_d", "vera_lambda_d", [self.r]).with_init(Init::Full(self.d_initial)),
        ]
    }

    /// A `[r, largest d_in]` and B `[largest d_out, r]`.
    fn shared(&self, groups: &[Group], device: &Device) -> Factors {
        let greatest = |size: fn(&Site) -> usize| groups.iter().map(|group| size(group.site())).max().unwrap_or(0);
        let shapes = [
            [self.r, greatest(|site| site.d_in)],
            [greatest(|site| site.d_out), self.r],
        ];
        let spec = |name: &str, shape: [usize; 2]| {
            let spec = Spec::new(name, format!("vera_{}", name.to_uppercase()), shape);
            if self.save_projection {
                spec.frozen()
            } else {
                spec.constant()
            }
        };
        let specs = vec![spec("a", shapes[0]), spec("b", shapes[1])];
        let mut generator = Mt::new(self.projection_prng_key);
        // Kaiming-uniform with a = 0: U(±√(6 / fan_in)).
        let mut draw = |shape: [usize; 2]| {
            let bound = (6.0 / shape[1] as f64).sqrt() as f32;
            uniform(shape, bound, &mut generator, device)
        };
        let (a, b) = (draw(shapes[0]), draw(shapes[1]));
        Factors::draw(specs, device).with("a", a).with("b", b)
    }

    fn bind(&self, group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        let first = |matrix: Tensor<2>, dim: usize, length: usize| match matrix.dims()[dim] == length {
            true => matrix,
            false => matrix.narrow(dim, 0, length),
        };
        let site = group.site();
        Arc::new(BoundVera {
            a: first(factors.matrix("a"), 1, site.d_in),
            b: first(factors.matrix("b"), 0, site.d_out),
            lambda_b: factors.vector("lambda_b"),
            lambda_d: factors.vector("lambda_d"),
            // An embedding reads no activations that could be dropped.
            dropout: if site.kind == SiteKind::Embedding {
                0.0
            } else {
                self.dropout
            },
        })
    }

    fn has_lora_form(&self) -> bool {
        true
    }
}

/// The edit of a bound site.
#[derive(Debug)]
struct BoundVera {
    a: Tensor<2>,
    b: Tensor<2>,
    lambda_b: Tensor<1>,
    lambda_d: Tensor<1>,
    dropout: f64,
}

impl BoundVera {
    fn factors(&self) -> LowRank {
        LowRank {
            a: self.a.clone() * self.lambda_d.clone().unsqueeze_dim::<2>(1),
            b: self.b.clone() * self.lambda_b.clone().unsqueeze_dim::<2>(1),
            scale: 1.0,
        }
    }
}

impl Edit for BoundVera {
    // The vectors scale activations: scaled copies of A and B would take d_in·r and d_out·r elements at every step.
    fn update(&self, x: Tensor<2>, _weight: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        let read = dropped(for_products(x), self.dropout);
        let in_products = read.dtype();
        let matrix = |factor: &Tensor<2>| cast(factor.clone(), in_products).transpose();
        let row = |factor: &Tensor<1>| cast(factor.clone(), in_products).unsqueeze::<2>();
        let code = read.matmul(matrix(&self.a)) * row(&self.lambda_d);
        cast(code.matmul(matrix(&self.b)) * row(&self.lambda_b), dtype)
    }

    fn residual_in_training(&self, weight: Tensor<2>) -> Tensor<2> {
        let LowRank { a, b, scale } = self.factors();
        let a = dropped_inputs(a, self.dropout);
        cast(LowRank { a, b, scale }.dense(), weight.dtype())
    }

    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        cast(self.factors().dense(), weight.dtype())
    }

    fn low_rank(&self, _weight: Tensor<2>) -> Option<LowRank> {
        Some(self.factors())
    }

    fn unmerged(&self, merged: Tensor<2>) -> Option<Tensor<2>> {
        Some(merged.clone() - self.residual(merged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AdapterConfig;
    use crate::methods::laws::Case;

    const TARGETS: [&str; 3] = ["proj", "up", "down"];

    #[test]
    fn keeps_the_laws() {
        let vera = || VeraConfig::new(5).with_d_initial(0.5);
        let unsaved = vera().with_projection_prng_key(7).with_save_projection(false);
        for config in [vera(), unsaved] {
            Case::new(AdapterConfig::new(config).with_target_modules(TARGETS)).check();
        }
    }
}
