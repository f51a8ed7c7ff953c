//! Activations of encoders and their heads.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::lm::mlp::Activation;

/// An activation of an encoder: an MLP's, or tanh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// tanh
    Tanh,
    /// What MLPs have too.
    Mlp(Activation),
}

impl Act {
    /// x·Φ(x)
    pub const GELU: Self = Self::Mlp(Activation::Gelu);

    /// By transformers' name; `field` is where it was found.
    ///
    /// # Errors
    /// A name that is not implemented.
    pub fn parse(field: &str, name: &str) -> Result<Self, String> {
        match name {
            "tanh" => Ok(Self::Tanh),
            name => Activation::parse(field, name)
                .map(Self::Mlp)
                .map_err(|message| format!("{message}, and tanh")),
        }
    }

    /// Any shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Tanh => x.tanh(),
            Self::Mlp(activation) => activation.forward(x),
        }
    }
}
