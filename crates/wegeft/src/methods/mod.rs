//! The methods, one file each. A method has a config, the factors that it trains (a Burn `Module`) and, for one
//! forward pass, a bound state that implements [`Edit`].

pub mod generator;
pub mod lora;
pub mod low_rank;
pub mod parts;
pub mod wegeft;

use burn::module::{Module, Reparameterization};
use burn::tensor::{DType, Tensor};

use lora::{BoundLora, Lora};
use low_rank::LowRank;
use parts::BoundParts;
use wegeft::{BoundWegeft, Wegeft};

/// What a bound site does in place of the frozen layer. The defaults are the frozen layer itself; a method
/// implements what it changes.
pub trait Edit {
    /// `x W'` in activation space. `x`: `[n, d_in]`, `weight` (the stored one): `[d_in, d_out]`, result `[n, d_out]`.
    fn matmul(&self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        x.matmul(weight)
    }

    /// The residual `W' - W`, `[d_in, d_out]`: the weight-space route, and what a merge adds.
    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        weight.zeros_like()
    }

    /// The bias in place of `bias`, `[d_out]`.
    fn bias(&self, bias: Tensor<1>) -> Tensor<1> {
        bias
    }

    /// What a [`crate::Hook`] passes on in place of `x`, `[batch, tokens, d_model]`.
    fn activation(&self, x: Tensor<3>) -> Tensor<3> {
        x
    }

    /// The residual as a low-rank product, if it is one exactly.
    fn low_rank(&self, _weight: Tensor<2>) -> Option<LowRank> {
        None
    }
}

/// The trainable factors of one group of sites.
#[derive(Module, Debug)]
pub enum Factors {
    /// See [`wegeft`].
    Wegeft(Wegeft),
    /// See [`lora`].
    Lora(Lora),
}

impl Factors {
    /// What a forward pass attaches to each site of the group: handles to the factors, no copy.
    pub fn bind(&self) -> Bound {
        match self {
            Self::Wegeft(factors) => Bound::Wegeft(factors.bind()),
            Self::Lora(factors) => Bound::Lora(factors.bind()),
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
    /// See [`parts`].
    Parts(BoundParts),
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
            Self::Parts(bound) => bound,
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
        let base = if is_quantized(base.dtype()) {
            base.dequantize()
        } else {
            base
        };
        let residual = self.edit().residual(base.clone().reshape([shape[0], shape[1]]));
        base + residual.reshape(shape)
    }
}

/// Name on disk, after the module's, of a factor's field: PEFT's, and for WeGeFT those of its fork of PEFT.
pub(crate) fn name_on_disk(field: &str) -> String {
    let name = match field {
        "phi" => "wegeft_phi",
        "psi" => "wegeft_psi",
        "a" => "lora_A.weight",
        "b" => "lora_B.weight",
        // Names of enum variants are Burn's way to walk, not names of anything.
        other => {
            let fields = other.split('.').filter(|part| !part.starts_with(char::is_uppercase));
            return format!("wegeft_{}", fields.collect::<Vec<_>>().join("."));
        }
    };
    name.to_string()
}

/// `x` in `dtype`. Nothing to do where it already is, as for factors of the backbone's own type; a quantized
/// weight stays as it is, since products take it so.
pub(crate) fn cast<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype || is_quantized(x.dtype()) {
        return x;
    }
    x.cast(dtype)
}

/// True for Burn's quantized types.
pub(crate) fn is_quantized(dtype: DType) -> bool {
    matches!(dtype, DType::QFloat(_))
}
