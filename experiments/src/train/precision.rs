//! Data types of the weights: frozen weights may be in half precision, trained parameters are f32.

use std::collections::HashSet;

use backbones::lm::Precision;
use burn::module::{Module, ModuleDisplay, ModuleMapper, Param, ParamId};
use burn::tensor::{DType, Device, Tensor};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use wegeft::Adapted;

/// Data type of the frozen weights in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits with f32's range.
    Bf16,
    /// 16 bits.
    F16,
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
            Dtype::F16 => Self::F16,
        }
    }
}

impl Dtype {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// `model` with the weights of its linear layers as `dtype`; norms, biases and embeddings, which are small, and
/// activations remain f32.
///
/// # Errors
/// A type that the device cannot compute with.
pub fn with_weights_of<M: Module>(model: M, dtype: Dtype, device: &Device) -> Result<M, String> {
    let precision = Precision::from(dtype);
    precision.check(device).map_err(|e| e.to_string())?;
    match dtype {
        Dtype::F32 => Ok(model),
        Dtype::Bf16 | Dtype::F16 => Ok(model.map(&mut Narrow {
            dtype: precision.dtype(),
            holders: Vec::new(),
        })),
    }
}

struct Narrow {
    dtype: DType,
    holders: Vec<bool>,
}

impl ModuleMapper for Narrow {
    fn enter_module(&mut self, _name: &str, container_type: &str) {
        self.holders.push(container_type.rsplit(':').next() == Some("Linear"));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.holders.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D != 2 || self.holders.last() != Some(&true) {
            return param;
        }
        let dtype = self.dtype;
        param.map(|weight| weight.cast(dtype).detach())
    }
}

/// `adapted` with all trained parameters in f32, because a step of AdamW is often smaller than the rounding of a bf16
/// weight. The frozen weights keep their type.
pub fn trained_in_f32<M: Module + ModuleDisplay>(adapted: Adapted<M>) -> Adapted<M> {
    let trained = adapted.saved_params().into_iter().map(|param| param.id).collect();
    adapted.map(&mut Widen { trained })
}

/// Upcasts the model's own trained parameters to f32; the factors of an adapter are f32 already.
struct Widen {
    trained: HashSet<ParamId>,
}

impl ModuleMapper for Widen {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.trained.contains(&param.id) || !matches!(param.base().dtype(), DType::BF16 | DType::F16) {
            return param;
        }
        param.map(|tensor| {
            // A cast tensor is not a leaf of the graph: no gradient would reach it.
            let trained = tensor.is_require_grad();
            tensor.cast(DType::F32).detach().set_require_grad(trained)
        })
    }
}
