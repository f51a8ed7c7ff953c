//! A language model with an adapter.

use std::path::Path;

use backbones::lm::Decoder;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};

/// `model` with the adapter of `folder` bound to it, or merged into its weights.
///
/// # Errors
/// An adapter that cannot be read or does not fit.
pub fn adapted(model: Decoder, folder: &Path, merge: bool) -> Result<Decoder, String> {
    let mut found = FirstDtype(None);
    model.visit(&mut found);
    let config = wegeft::read_config(folder).map_err(|e| e.to_string())?;
    let adapted = config.init(model).map_err(|e| e.to_string())?;
    let adapted = adapted.load(folder).map_err(|e| e.to_string())?;
    // Factors are stored in f32; the products are in the model's type.
    let adapted = adapted.map(&mut Cast(found.0.unwrap_or(DType::F32)));
    match merge {
        true => adapted.merge().map_err(|e| e.to_string()),
        false => Ok(adapted.bind()),
    }
}

/// The type of a model's first parameter, its embedding.
struct FirstDtype(Option<DType>);

impl ModuleVisitor for FirstDtype {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.0.is_none() {
            self.0 = Some(param.base().dtype());
        }
    }
}

struct Cast(DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match param.base().dtype() {
            DType::QFloat(_) => param,
            dtype if dtype == self.0 => param,
            _ => param.map(|tensor| tensor.cast(self.0)),
        }
    }
}
