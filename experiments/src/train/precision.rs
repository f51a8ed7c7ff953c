//! Data types of the weights: frozen weights may be in half precision, trained parameters are f32.

use std::collections::HashSet;

use backbones::lm::Precision;
use burn::module::{Module, ModuleDisplay, ModuleMapper, Param, ParamId};
use burn::tensor::{DType, Device, Tensor};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use wegeft::Adapted;

/// Data type of the frozen weights, and of the activations where the device computes in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits with f32's range.
    Bf16,
    /// 16 bits. Where the device computes in it, the loss is scaled in training, so that no gradient underflows.
    F16,
    /// f32 with products of 16 bits, on devices that have it.
    Flex32,
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
            Dtype::F16 => Self::F16,
            Dtype::Flex32 => Self::Flex32,
        }
    }
}

impl Dtype {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::Flex32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// Type of the activations on `device`.
    pub fn activations(self, device: &Device) -> DType {
        Precision::from(self).activations(device)
    }

    /// True if a training by `devices` needs a scaled loss: gradients of f16 activations underflow.
    ///
    /// # Errors
    /// A type that one of them does not compute in.
    pub fn scales_loss(self, devices: &[Device]) -> Result<bool, String> {
        for device in devices {
            Precision::from(self).check(device).map_err(|e| e.to_string())?;
        }
        Ok(devices.iter().any(|device| self.activations(device) == DType::F16))
    }
}

/// `model` with the weights of its linear layers as `dtype`; norms, biases and embeddings, which are small, remain f32.
///
/// # Errors
/// A type that the device cannot compute with.
pub fn with_weights_of<M: Module>(model: M, dtype: Dtype, device: &Device) -> Result<M, String> {
    let precision = Precision::from(dtype);
    precision.check(device).map_err(|e| e.to_string())?;
    match dtype {
        Dtype::F32 => Ok(model),
        Dtype::Bf16 | Dtype::F16 | Dtype::Flex32 => Ok(model.map(&mut Narrow {
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
        let narrow = matches!(param.base().dtype(), DType::BF16 | DType::F16 | DType::Flex32);
        if !self.trained.contains(&param.id) || !narrow {
            return param;
        }
        param.map(|tensor| {
            // A cast tensor is not a leaf of the graph: no gradient would reach it.
            let trained = tensor.is_require_grad();
            tensor.cast(DType::F32).detach().set_require_grad(trained)
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};

    use super::*;

    #[derive(Module, Debug)]
    struct Net {
        layer: Linear,
    }

    fn net(device: &Device) -> Net {
        Net {
            layer: LinearConfig::new(3, 2).init(device),
        }
    }

    const ALL: [Dtype; 4] = [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::Flex32];

    #[test]
    fn memory_is_counted_by_the_size_of_an_element() {
        for dtype in ALL {
            assert_eq!(dtype.bytes(), Precision::from(dtype).dtype().size(), "{dtype:?}");
        }
        assert_eq!(ALL.map(Dtype::bytes), [4, 2, 2, 4]);
    }

    #[test]
    fn a_cpu_keeps_what_it_computes_in_f32_and_scales_no_loss() {
        let device = Device::flex().autodiff();
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            let layer = with_weights_of(net(&device), dtype, &device).unwrap().layer;
            assert_eq!(layer.weight.base().dtype(), Precision::from(dtype).dtype());
            assert_eq!(layer.bias.unwrap().base().dtype(), DType::F32);
            assert_eq!(dtype.activations(&device), DType::F32);
            assert_eq!(dtype.scales_loss(std::slice::from_ref(&device)), Ok(false));
        }
        let refused = with_weights_of(net(&device), Dtype::Flex32, &device);
        let refused = refused.map(drop).unwrap_err();
        assert!(refused.contains("does not compute in flex32"), "{refused}");
        let each = Dtype::Flex32.scales_loss(&[device.clone(), device]);
        assert_eq!(each, Err(refused));
    }
}
