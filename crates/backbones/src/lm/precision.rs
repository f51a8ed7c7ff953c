//! Types of the weights in memory.

use std::str::FromStr;

use burn::tensor::{DType, Device};

use crate::error::{ImportError, UnknownName};

/// Type of the weights in memory. On flex, which reads half-precision weights as they are, computation is in f32; elsewhere it is in
/// this type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits with f32's range.
    Bf16,
    /// 16 bits.
    F16,
}

impl FromStr for Precision {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            other => Err(UnknownName {
                name: other.to_string(),
                what: "dtype",
                known: "f32, bf16 or f16",
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
        }
    }

    /// Refuses a dtype that the device cannot compute in: Burn accepts it without an error, and results are then arbitrary.
    ///
    /// # Errors
    /// A type that `device` does not compute in.
    pub fn check(self, device: &Device) -> Result<(), ImportError> {
        let fits = |precision: Self| device.supports_dtype(precision.dtype());
        match self {
            Self::F32 => Ok(()),
            asked if fits(asked) => Ok(()),
            asked => Err(ImportError::Precision {
                asked: if asked == Self::F16 { "f16" } else { "bf16" },
                fitting: match asked {
                    Self::F16 if fits(Self::Bf16) => "f32 or bf16",
                    Self::Bf16 if fits(Self::F16) => "f32 or f16",
                    _ => "f32",
                },
            }),
        }
    }
}
