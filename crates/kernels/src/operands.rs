//! The argument checks of every operation: device, dtype and shape of each operand, before anything reads it. The fused loops
//! rely on them, and a message that names the operand beats one from inside a matrix product.

use burn::tensor::{DType, Device, Tensor};

/// The operands of one call. The first one sets the device and dtype that the others must match.
pub(crate) struct Operands {
    operation: &'static str,
    first: &'static str,
    device: Device,
    dtype: DType,
}

impl Operands {
    /// # Panics
    /// `x` is not a float tensor.
    #[track_caller]
    pub fn of<const D: usize>(operation: &'static str, name: &'static str, x: &Tensor<D>) -> Self {
        #[cfg(not(feature = "flex"))]
        crate::unfused::warn_on_flex(&x.device());
        let operands = Self {
            operation,
            first: name,
            device: x.device(),
            dtype: x.dtype(),
        };
        assert!(
            operands.dtype.is_float(),
            "{operation}: `{name}` has dtype {:?}; expected a float dtype",
            operands.dtype
        );
        operands
    }

    /// Requires a tensor of any float dtype on the same device.
    #[track_caller]
    pub fn float<const D: usize>(&self, name: &str, x: &Tensor<D>) -> &Self {
        let (operation, dtype) = (self.operation, x.dtype());
        assert!(
            dtype.is_float(),
            "{operation}: `{name}` has dtype {dtype:?}; expected a float dtype"
        );
        self.on_device(name, &x.device())
    }

    /// Requires a float or quantized tensor on the same device.
    #[track_caller]
    pub fn weight<const D: usize>(&self, name: &str, x: &Tensor<D>) -> &Self {
        let (operation, dtype) = (self.operation, x.dtype());
        assert!(
            dtype.is_float() || matches!(dtype, DType::QFloat(_)),
            "{operation}: `{name}` has dtype {dtype:?}; expected a float or quantized dtype"
        );
        self.on_device(name, &x.device())
    }

    /// Requires the dtype and the device of the first operand.
    #[track_caller]
    pub fn same<const D: usize>(&self, name: &str, x: &Tensor<D>) -> &Self {
        assert!(
            x.dtype() == self.dtype,
            "{}: `{name}` has dtype {:?}, `{}` has {:?}; cast one of them",
            self.operation,
            x.dtype(),
            self.first,
            self.dtype
        );
        self.on_device(name, &x.device())
    }

    /// Requires the device of the first operand.
    #[track_caller]
    pub fn on_device(&self, name: &str, device: &Device) -> &Self {
        assert!(
            *device == self.device,
            "{}: `{name}` is on {device:?}, `{}` is on {:?}; move one of them",
            self.operation,
            self.first,
            self.device
        );
        self
    }

    /// Requires the operand `name` of shape `found` to have the shape `expected`; `meaning` spells it out, such as `[n, d_out]`.
    #[track_caller]
    pub fn shape(&self, name: &str, found: &[usize], expected: &[usize], meaning: &str) -> &Self {
        assert!(
            found == expected,
            "{}: `{name}` has shape {found:?}; expected {meaning} = {expected:?}",
            self.operation
        );
        self
    }

    /// Requires `condition`; panics with `message` otherwise.
    #[track_caller]
    pub fn require(&self, condition: bool, message: impl FnOnce() -> String) -> &Self {
        assert!(condition, "{}: {}", self.operation, message());
        self
    }
}
