//! What each family implements.

use burn::tensor::{DType, Device, Int, Tensor};

use super::attention::Pass;
use super::hooks::Places;
use crate::lm::Layout;

/// What a family does by itself; [`super::Encoder`] does the rest.
pub(crate) trait Parts {
    fn pass(&self, layout: &Layout, _dtype: DType, _device: &Device) -> Pass {
        Pass::new(layout)
    }
    fn embed(&self, ids: Tensor<2, Int>, layout: &Layout, types: Option<Tensor<2, Int>>) -> Tensor<3>;
    fn layer(&self, index: usize, x: Tensor<3>, pass: &Pass, places: Places) -> Tensor<3>;
    /// [`Parts::layer`] for the first column alone, `[batch, 1, d_model]`: the others serve as keys and values.
    fn layer_first(&self, index: usize, x: Tensor<3>, pass: &Pass, places: Places) -> Tensor<3>;
    fn normed(&self, x: Tensor<3>) -> Tensor<3> {
        x
    }
}
