//! The methods, one file each. A method has a config, the factors that it trains (a Burn `Module`) and, for one
//! forward pass, a bound state that implements [`Edit`].

pub mod bitfit;
pub mod bottleneck;
pub mod dora;
pub mod generator;
pub mod ia3;
pub mod layernorm;
pub mod lora;
pub mod lora_init;
pub mod low_rank;
pub mod orthonormal;
pub mod parts;
pub mod reft;
pub mod rows;
pub mod vector;
pub mod vera;
pub mod vpt;
pub mod wegeft;

use burn::module::{Module, ParamId, Reparameterization};
use burn::nn::DropoutConfig;
use burn::tensor::{DType, Device, Tensor};

use crate::bank::Group;
use crate::config::Targets;
use crate::error::AdapterError;
use crate::linear::product;
use crate::select;
use crate::site::{Places, Site};
use crate::weights::Weights;
use bottleneck::Bottleneck;
use ia3::{BoundIa3, Ia3};
use lora::{BoundLora, Lora};
use low_rank::LowRank;
use parts::BoundParts;
use reft::{BoundReft, Reft};
use rows::{BoundOwn, BoundRows};
use vector::{BoundVector, Vector};
use vera::{BoundVera, Projection, Vera};
use vpt::{BoundPrompt, Prompt};
use wegeft::{BoundWegeft, Wegeft};

/// How a method makes its bank: where it acts, which sites share factors, and what the factors start as.
/// Implemented by each method's config.
pub(crate) trait Recipe {
    /// The sites that `targets` names among a model's places: rank-2 weights unless a method says otherwise.
    fn sites(&self, places: &Places, targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        select::find(&places.params, targets)
    }

    /// Sorts the sites into groups that share factors; refuses sites and settings that the method cannot take.
    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError>;

    /// Trainable values in the factors of a group.
    fn params(&self, group: &Group) -> usize;

    /// The factors, one a group.
    fn make(&self, groups: &[Group], weights: &Weights, device: &Device) -> Result<Vec<Factors>, AdapterError>;

    /// The frozen matrices that all groups share.
    fn projection(&self, _sites: &[Site], _device: &Device) -> Option<Projection> {
        None
    }

    /// True if the method changes weights only, so that it can be merged into them.
    fn merges(&self) -> bool {
        true
    }

    /// True if every residual is a low-rank product, so that the adapter can be exported as LoRA.
    fn has_lora_form(&self) -> bool {
        false
    }
}

/// What a bound site does in place of the frozen layer. The defaults are the frozen layer itself; a method
/// implements what it changes.
pub trait Edit {
    /// `x W'` in activation space. `x`: `[n, d_in]`, `weight` (the stored one): `[d_in, d_out]`, result `[n, d_out]`.
    fn matmul(&self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        product(x, weight)
    }

    /// `residual + x W' + bias`, what is there of it, for methods that can do it in one pass. Shapes as
    /// [`Edit::matmul`], `bias`: `[d_out]`, `residual`: `[n, d_out]`.
    fn affine(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<2>>,
    ) -> Tensor<2> {
        with_rest(self.matmul(x, weight), bias, residual)
    }

    /// The residual `W' - W`, `[d_in, d_out]`: the weight-space route, and what a merge adds.
    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        weight.zeros_like()
    }

    /// The vector in place of `bias`, `[d_out]`: a bias, or the scale of a norm.
    fn bias(&self, bias: Tensor<1>) -> Tensor<1> {
        bias
    }

    /// `out`, `[n, d_out]`, with the bias added.
    fn add_bias(&self, out: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
        let dtype = out.dtype();
        out + cast(self.bias(bias), dtype).unsqueeze::<2>()
    }

    /// What a [`crate::Hook`] passes on in place of `x`, `[batch, tokens, d_model]`.
    fn activation(&self, x: Tensor<3>) -> Tensor<3> {
        x
    }

    /// The residual as a low-rank product, if it is one exactly.
    fn low_rank(&self, _weight: Tensor<2>) -> Option<LowRank> {
        None
    }

    /// The weight whose merge is `merged`, `[d_in, d_out]`, if that determines it.
    fn unmerged(&self, _merged: Tensor<2>) -> Option<Tensor<2>> {
        None
    }

    /// The bias whose merge is `merged`, `[d_out]`, if that determines it.
    fn unmerged_bias(&self, _merged: Tensor<1>) -> Option<Tensor<1>> {
        None
    }
}

/// The trainable factors of one group of sites.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // one a group and not moved about; Burn's derive takes no box
pub enum Factors {
    /// See [`wegeft`].
    Wegeft(Wegeft),
    /// See [`lora`].
    Lora(Lora),
    /// See [`vera`].
    Vera(Vera),
    /// See [`ia3`].
    Ia3(Ia3),
    /// See [`bitfit`] and [`layernorm`].
    Vector(Vector),
    /// See [`reft`].
    Reft(Reft),
    /// See [`vpt`].
    Prompt(Prompt),
    /// See [`bottleneck`].
    Bottleneck(Bottleneck),
}

impl Factors {
    /// What a forward pass attaches to each site of the group: handles to the factors, no copy.
    pub(crate) fn bind(&self, projection: Option<&Projection>) -> Bound {
        match self {
            Self::Wegeft(factors) => Bound::Wegeft(factors.bind()),
            Self::Lora(factors) => Bound::Lora(factors.bind()),
            Self::Vera(factors) => Bound::Vera(factors.bind(projection)),
            Self::Ia3(factors) => Bound::Ia3(factors.bind()),
            Self::Vector(factors) => Bound::Vector(factors.bind()),
            Self::Reft(factors) => Bound::Reft(factors.bind()),
            Self::Prompt(factors) => Bound::Prompt(factors.bind()),
            Self::Bottleneck(factors) => Bound::Bottleneck(factors.clone()),
        }
    }

    /// The parameters among the factors that are saved but not trained.
    pub(crate) fn frozen(&self) -> Option<ParamId> {
        match self {
            Self::Lora(lora) => lora.frozen(),
            _ => None,
        }
    }

    /// True if the sites' biases are edited too.
    pub(crate) fn edits_bias(&self) -> bool {
        matches!(self, Self::Ia3(ia3) if !ia3.scales_input())
    }

    /// Name on disk, after PEFT's prefix, of a factor of the group that `site` owns: PEFT's own where it has the
    /// method, and for WeGeFT those of its fork of PEFT. `field` is the path within the factors.
    pub(crate) fn name_on_disk(&self, site: &Site, field: &str) -> String {
        let module = site.module();
        match (self, field) {
            (Self::Lora(_), "a") => format!("{module}.lora_A.weight"),
            (Self::Lora(_), "b") => format!("{module}.lora_B.weight"),
            (Self::Lora(_), _) => format!("{module}.lora_magnitude_vector"),
            (Self::Vera(_), field) => format!("{module}.vera_{field}"),
            (Self::Ia3(_), _) => format!("{module}.ia3_l"),
            (Self::Vector(vector), _) => vector.name_on_disk(site),
            (Self::Reft(_), field) => format!("{module}.reft_{field}"),
            (Self::Prompt(_), _) => format!("{module}.prompt_embeddings"),
            (Self::Bottleneck(_), field) => format!("{module}.adapter_{field}"),
            // As in the WeGeFT fork of PEFT.
            (Self::Wegeft(_), field @ ("phi" | "psi")) => format!("{module}.wegeft_{field}.weight"),
            (Self::Wegeft(_), field) => {
                // Names of enum variants are Burn's way to walk, not names of anything.
                let fields = field.split('.').filter(|part| !part.starts_with(char::is_uppercase));
                format!("{module}.wegeft_{}", fields.collect::<Vec<_>>().join("."))
            }
        }
    }
}

/// The factors as one bound site sees them, for the time of one forward pass.
#[derive(Module, Debug)]
pub enum Bound {
    /// See [`wegeft`].
    Wegeft(BoundWegeft),
    /// See [`lora`].
    Lora(BoundLora),
    /// See [`vera`].
    Vera(BoundVera),
    /// See [`ia3`].
    Ia3(BoundIa3),
    /// See [`vector`].
    Vector(BoundVector),
    /// See [`reft`].
    Reft(BoundReft),
    /// See [`vpt`].
    Prompt(BoundPrompt),
    /// See [`bottleneck`].
    Bottleneck(Bottleneck),
    /// See [`parts`].
    Parts(BoundParts),
    /// See [`rows`].
    Rows(BoundRows),
    /// See [`rows`].
    Own(BoundOwn),
}

impl Bound {
    /// True if layers that read the same input can share one edit of it: both bound to the same input-side WeGeFT.
    pub(crate) fn shared_input_edit<'a>(&'a self, other: &Self) -> Option<&'a BoundWegeft> {
        match (self, other) {
            (Self::Wegeft(this), Self::Wegeft(other)) if this.shares_edit_with(other) => Some(this),
            _ => None,
        }
    }

    /// What this bound state does to its site.
    pub fn edit(&self) -> &dyn Edit {
        match self {
            Self::Wegeft(bound) => bound,
            Self::Lora(bound) => bound,
            Self::Vera(bound) => bound,
            Self::Ia3(bound) => bound,
            Self::Vector(bound) => bound,
            Self::Reft(bound) => bound,
            Self::Prompt(bound) => bound,
            Self::Bottleneck(bound) => bound,
            Self::Parts(bound) => bound,
            Self::Rows(bound) => bound,
            Self::Own(bound) => bound,
        }
    }
}

impl Reparameterization for Bound {
    const NAME: &'static str = "wegeft";

    // Burn reads `Param::val()` through this: the weight-space route that needs no change in the model.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let shape = base.shape();
        if D == 1 {
            let [width] = [shape[0]];
            return self.edit().bias(base.reshape([width])).reshape(shape);
        }
        let base = dequantized(base);
        let residual = self.edit().residual(base.clone().reshape([shape[0], shape[1]]));
        base + residual.reshape(shape)
    }
}

/// `residual + out + bias`, what is there of it; shapes as [`Edit::affine`].
pub(crate) fn with_rest(out: Tensor<2>, bias: Option<Tensor<1>>, residual: Option<Tensor<2>>) -> Tensor<2> {
    let out = match bias {
        Some(bias) => {
            let dtype = out.dtype();
            out + cast(bias, dtype).unsqueeze::<2>()
        }
        None => out,
    };
    match residual {
        Some(residual) => residual + out,
        None => out,
    }
}

/// `x` in `dtype`. Nothing to do where it already is, as for factors of the backbone's own type; a quantized
/// weight stays as it is, since products take it so.
pub(crate) fn cast<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype || is_quantized(x.dtype()) {
        return x;
    }
    x.cast(dtype)
}

/// `x` with dropout of probability `p`, in training.
pub(crate) fn dropped<const D: usize>(x: Tensor<D>, p: f64) -> Tensor<D> {
    match p > 0.0 {
        true => DropoutConfig::new(p).init().forward(x),
        false => x,
    }
}

/// `x` as a float tensor.
pub(crate) fn dequantized<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match is_quantized(x.dtype()) {
        true => x.dequantize(),
        false => x,
    }
}

/// True for Burn's quantized types.
pub(crate) fn is_quantized(dtype: DType) -> bool {
    matches!(dtype, DType::QFloat(_))
}
