//! VeRA (Vector-based Random Matrix Adaptation, Kopiczko et al. 2024, arXiv 2310.11454):
//! `y = x W + b ∘ ((d ∘ (x Aᵀ)) Bᵀ)`. A and B are random, frozen and shared by all sites; only the vectors d of
//! `[r]` and b of `[d_out]` are trained. d starts at 0.1 and b at 0, as in the paper (section 4) and in PEFT.
//!
//! A of `[r, greatest d_in]` and B of `[greatest d_out, r]` exist once; a smaller site reads their first columns and
//! rows. They are drawn from `projection_prng_key` as PEFT draws them on the CPU, so that an adapter saved without
//! them (`save_projection: false`) loads here too.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use rand_mt::Mt;
use serde::{Deserialize, Serialize};

use super::low_rank::LowRank;
use super::orthonormal::uniform;
use super::wegeft::check_probability;
use super::{Edit, Factors, Recipe, cast, dropped};
use crate::bank::{Group, own_groups};
use crate::error::AdapterError;
use crate::linear::product;
use crate::site::Site;
use crate::weights::Weights;

/// Settings of VeRA; names and defaults as in PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VeraConfig {
    /// Rank of A and B: higher than LoRA's, since it costs r trained values a site.
    pub r: usize,
    /// Start of d.
    #[serde(default = "d_initial")]
    pub d_initial: f64,
    /// Seed of A and B.
    #[serde(default)]
    pub projection_prng_key: u32,
    /// A and B are saved with the adapter.
    #[serde(default = "saved")]
    pub save_projection: bool,
    /// Dropout on what A reads, in training.
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

    /// Sets the dropout on what A reads.
    pub fn with_dropout(mut self, p: f64) -> Self {
        self.dropout = p;
        self
    }
}

impl Recipe for VeraConfig {
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
        Ok(own_groups(sites))
    }

    fn params(&self, group: &Group) -> usize {
        self.r + group.sites[0].d_out
    }

    fn make(&self, groups: &[Group], _weights: &Weights, device: &Device) -> Result<Vec<Factors>, AdapterError> {
        let factors = groups.iter().map(|group| {
            let site = &group.sites[0];
            Factors::Vera(Vera {
                lambda_b: Param::from_tensor(Tensor::zeros([site.d_out], device)),
                lambda_d: Param::from_tensor(Tensor::full([self.r], self.d_initial, device)),
                d_in: site.d_in,
                dropout: self.dropout,
            })
        });
        Ok(factors.collect())
    }

    fn projection(&self, sites: &[Site], device: &Device) -> Option<Projection> {
        let greatest = |size: fn(&Site) -> usize| sites.iter().map(size).max();
        let (d_in, d_out) = (greatest(|site| site.d_in)?, greatest(|site| site.d_out)?);
        let mut generator = Mt::new(self.projection_prng_key);
        // Kaiming-uniform with a = 0: U(±√(6 / fan_in)).
        let mut draw = |shape: [usize; 2]| {
            let bound = (6.0 / shape[1] as f64).sqrt() as f32;
            Param::from_tensor(uniform(shape, bound, &mut generator, device)).set_require_grad(false)
        };
        Some(Projection {
            a: draw([self.r, d_in]),
            b: draw([d_out, self.r]),
            saved: self.save_projection,
        })
    }

    fn has_lora_form(&self) -> bool {
        true
    }
}

/// The frozen matrices of all sites.
#[derive(Module, Debug)]
pub struct Projection {
    /// `[r, greatest d_in]`
    pub a: Param<Tensor<2>>,
    /// `[greatest d_out, r]`
    pub b: Param<Tensor<2>>,
    saved: bool,
}

impl Projection {
    pub(crate) fn is_saved(&self) -> bool {
        self.saved
    }
}

/// The vectors of one site.
#[derive(Module, Debug)]
pub struct Vera {
    /// b, `[d_out]`
    pub lambda_b: Param<Tensor<1>>,
    /// d, `[r]`
    pub lambda_d: Param<Tensor<1>>,
    d_in: usize,
    dropout: f64,
}

impl Vera {
    pub(crate) fn bind(&self, projection: Option<&Projection>) -> BoundVera {
        let projection = projection.expect("a bank with VeRA factors has their projection");
        let first = |matrix: Tensor<2>, dim: usize, length: usize| match matrix.dims()[dim] == length {
            true => matrix,
            false => matrix.narrow(dim, 0, length),
        };
        let lambda_b = self.lambda_b.val();
        let [d_out] = lambda_b.dims();
        BoundVera {
            a: first(projection.a.val(), 1, self.d_in),
            b: first(projection.b.val(), 0, d_out),
            lambda_b,
            lambda_d: self.lambda_d.val(),
            dropout: self.dropout,
        }
    }
}

/// Vectors and matrices as a bound site sees them.
#[derive(Module, Debug)]
pub struct BoundVera {
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
    // The vectors go on the activations: scaled copies of A and B would be d_in·r and d_out·r values a step.
    fn matmul(&self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        let read = dropped(cast(x.clone(), self.a.dtype()), self.dropout);
        let code = read.matmul(self.a.clone().transpose()) * self.lambda_d.clone().unsqueeze::<2>();
        let update = code.matmul(self.b.clone().transpose()) * self.lambda_b.clone().unsqueeze::<2>();
        let out = product(x, weight);
        out.clone() + cast(update, out.dtype())
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
