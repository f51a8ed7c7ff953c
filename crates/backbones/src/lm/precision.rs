//! Types of the weights and of what is computed from them.

use std::str::FromStr;

use burn::tensor::{DType, Device, Tensor};

use crate::error::{ImportError, UnknownName};

/// Type of the weights in memory, and of the activations where the device computes in it. Flex reads half-precision weights as
/// they are and computes in f32. Norms, softmax and losses are computed in f32 everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits with f32's range.
    Bf16,
    /// 16 bits.
    F16,
    /// f32 in memory, with products of 16 bits.
    Flex32,
}

impl FromStr for Precision {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            "flex32" => Ok(Self::Flex32),
            other => Err(UnknownName {
                name: other.to_string(),
                what: "dtype",
                known: "f32, bf16, f16 or flex32",
            }),
        }
    }
}

impl Precision {
    /// As Burn names it.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
            Self::Flex32 => DType::Flex32,
        }
    }

    /// As PyTorch names it, and config.json. A file has no type of products: there flex32 is f32.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 | Self::Flex32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// Type of the activations of a model whose weights are of this type, on `device`.
    pub fn activations(self, device: &Device) -> DType {
        match self {
            Self::F32 => DType::F32,
            other => kernels::compute_dtype(&Tensor::<1>::zeros([1], (device, other.dtype()))),
        }
    }

    /// Refuses a dtype that the device cannot compute in: Burn accepts it without an error, and results are then arbitrary.
    ///
    /// # Errors
    /// A type that `device` does not compute in.
    pub fn check(self, device: &Device) -> Result<(), ImportError> {
        if self.fits(device) {
            return Ok(());
        }
        let other = |precision: Self| precision != self && precision.fits(device);
        Err(ImportError::Precision {
            asked: match self {
                Self::F32 => "f32",
                Self::Bf16 => "bf16",
                Self::F16 => "f16",
                Self::Flex32 => "flex32",
            },
            fitting: match (other(Self::Bf16), other(Self::F16)) {
                (true, true) => "f32, bf16 or f16",
                (true, false) => "f32 or bf16",
                (false, true) => "f32 or f16",
                (false, false) => "f32",
            },
        })
    }

    fn fits(self, device: &Device) -> bool {
        match self {
            Self::F32 => true,
            Self::Bf16 | Self::F16 => device.supports_dtype(self.dtype()),
            // Backends that have it may hand out f32 where a tensor is cast to it, and then multiply in f32.
            Self::Flex32 => {
                device.supports_dtype(DType::Flex32) && {
                    let cast = Tensor::<1>::zeros([1], (device, DType::F32)).cast(DType::Flex32);
                    cast.into_data().dtype() == DType::Flex32
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_asked_what_it_computes_in() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            for name in ["f32", "bf16", "f16"] {
                let precision: Precision = name.parse().unwrap();
                assert!(precision.check(&device).is_ok(), "{name}");
            }
            let refused = Precision::Flex32.check(&device).unwrap_err().to_string();
            assert_eq!(
                refused,
                "this device does not compute in flex32; load the weights as f32, bf16 or f16"
            );
        }
        assert!("f64".parse::<Precision>().is_err());
    }
}
