//! A language model with an adapter.

use std::path::Path;

use backbones::lm::Decoder;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use wegeft::Adapted;

/// `model` with the adapter of `folder` bound to it, or merged into its weights.
///
/// # Errors
/// An adapter that cannot be read or does not fit.
pub fn adapted(model: Decoder, folder: &Path, merge: bool) -> Result<Decoder, String> {
    let adapted = with_adapter(model, folder)?;
    if merge {
        return adapted.merge().map_err(|e| e.to_string());
    }
    Ok(adapted.bind())
}

/// `model` with the adapter of `folder`.
///
/// # Errors
/// An adapter that cannot be read or does not fit.
pub fn with_adapter(model: Decoder, folder: &Path) -> Result<Adapted<Decoder>, String> {
    let config = wegeft::read_config(folder).map_err(|e| e.to_string())?;
    let adapted = config.init(model).map_err(|e| e.to_string())?;
    let adapted = adapted.load(folder).map_err(|e| e.to_string())?;
    Ok(in_model_type(adapted))
}

/// `adapted` with its factors, which are made and stored in f32, in the type of the products: the model's, but f32 where
/// [`kernels::computes_in`] says so.
pub fn in_model_type(adapted: Adapted<Decoder>) -> Adapted<Decoder> {
    let mut found = FirstDtype(None);
    adapted.model().visit(&mut found);
    adapted.map(&mut Cast(found.0.unwrap_or(DType::F32)))
}

/// The type that is computed in with a model's first parameter, its embedding.
struct FirstDtype(Option<DType>);

impl ModuleVisitor for FirstDtype {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.0.is_none() {
            self.0 = Some(kernels::computes_in(&param.base()));
        }
    }
}

struct Cast(DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match param.base().dtype() {
            DType::QFloat(_) => param,
            dtype if dtype == self.0 => param,
            _ => param.map(|tensor| {
                // What is cast is no leaf of the graph: no gradient would reach it.
                let trained = tensor.is_require_grad();
                tensor.cast(self.0).detach().set_require_grad(trained)
            }),
        }
    }
}
