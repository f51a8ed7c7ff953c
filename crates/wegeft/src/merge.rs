//! Merging: adding the residuals to the weights, and taking them out again.

use std::collections::HashMap;
use std::fmt;

use burn::module::{Module, ModuleDisplay, ModuleMapper, Param, ParamId};
use burn::tensor::{DType, FloatDType, Tensor};

use crate::adapted::Adapted;
use crate::edit::{Bound, as_matrix};
use crate::error::AdapterError;
use crate::site::{EDIT_POINT, Site, TOKEN_POINT};
use crate::statistics;
use crate::tensor::{dequantized, is_quantized};

/// What a merge did to one weight or bias.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightChange {
    /// Path of the parameter.
    pub site: String,
    /// Largest absolute change of any element.
    pub greatest: f64,
    /// Where that element is: `[row, column]` in a weight `[d_in, d_out]`.
    pub at: Vec<usize>,
    /// Norm of the change, relative to the weight's (Frobenius).
    pub relative: f64,
    /// Largest error from rounding a merged element to the parameter's type; 0 for f32 and f64.
    pub rounding: f64,
}

/// What a merge did, weight by weight.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MergeReport {
    /// One entry per weight, in traversal order.
    pub changes: Vec<WeightChange>,
}

impl MergeReport {
    /// The change of the weight whose largest element change is the greatest.
    pub fn greatest(&self) -> Option<&WeightChange> {
        self.changes.iter().max_by(|a, b| a.greatest.total_cmp(&b.greatest))
    }

    /// Largest rounding error over all weights.
    pub fn rounding(&self) -> f64 {
        self.changes.iter().map(|change| change.rounding).fold(0.0, f64::max)
    }
}

impl fmt::Display for MergeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(change) = self.greatest() else {
            return write!(f, "nothing to merge");
        };
        write!(
            f,
            "{} weights merged; largest change {:.3e} in '{}' at {:?}; largest rounding error {:.1e}",
            self.changes.len(),
            change.greatest,
            change.site,
            change.at,
            self.rounding()
        )
    }
}

/// How well one weight was recovered from a merged one.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovery {
    /// Path of the weight.
    pub site: String,
    /// Largest absolute difference between the merged weight and the recovered one merged again.
    pub left: f64,
}

/// How well the weights were recovered from merged ones.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UnmergeReport {
    /// One entry per weight, in traversal order.
    pub recovered: Vec<Recovery>,
}

impl UnmergeReport {
    /// Largest [`Recovery::left`] of all weights.
    pub fn left(&self) -> f64 {
        self.recovered.iter().map(|weight| weight.left).fold(0.0, f64::max)
    }
}

impl<M: Module + ModuleDisplay> Adapted<M> {
    /// A plain model with the residuals written into its weights. It is as frozen as the backbone was: Burn's `unfreeze`
    /// makes its parameters trainable again.
    ///
    /// # Errors
    /// As [`Adapted::merge_with_report`].
    pub fn merge(&self) -> Result<M, AdapterError> {
        Ok(self.merge_with_report()?.0)
    }

    /// A plain model with the residuals written into its weights, and what that did to them. Weights of f16 and
    /// bf16 are merged in f32 and rounded once; a quantized weight becomes a float one, since quantizing the sum
    /// again would lose most of a small residual.
    ///
    /// # Errors
    /// A method that acts on activations, or a weight that would get NaN or infinite elements.
    pub fn merge_with_report(&self) -> Result<(M, MergeReport), AdapterError> {
        let mut merger = Merger {
            walk: Walk::new(self),
            report: MergeReport::default(),
        };
        let merged = self.plain().map(&mut merger);
        match merger.walk.refused {
            None => Ok((merged, merger.report)),
            Some(error) => Err(error),
        }
    }

    /// The backbone, with running statistics of its own where this adapter trains them: it goes on training.
    fn plain(&self) -> M {
        let backbone = self.backbone().clone();
        match self.trains_statistics() {
            true => statistics::unshared(backbone),
            false => backbone,
        }
    }

    /// The inverse of [`Adapted::merge`]: treats this model's weights as merged ones and returns the model with the weights
    /// before the merge. LoRA's residual is subtracted; WeGeFT's, which depends on the weight, is undone with the Woodbury
    /// identity, `W = W' - s·psiᵀ (I + s·phiᵀ psiᵀ)⁻¹ phiᵀ W'` (input side, Burn's layout).
    ///
    /// # Errors
    /// A method whose merge cannot be undone, or elements that are NaN or infinite.
    pub fn unmerge(&self) -> Result<(M, UnmergeReport), AdapterError> {
        let mut unmerger = Unmerger {
            walk: Walk::new(self),
            report: UnmergeReport::default(),
        };
        let model = self.plain().map(&mut unmerger);
        match unmerger.walk.refused {
            None => Ok((model, unmerger.report)),
            Some(error) => Err(error),
        }
    }
}

/// What both walks over the model's parameters share.
struct Walk {
    path: Vec<String>,
    bound: HashMap<String, Bound>,
    method: String,
    refused: Option<AdapterError>,
    /// Path of the site, by the other places of a tied weight.
    tied: HashMap<String, String>,
    /// Ids of the changed parameters, by site.
    ids: HashMap<String, ParamId>,
}

impl Walk {
    fn new<M: Module + ModuleDisplay>(adapted: &Adapted<M>) -> Self {
        Self {
            path: Vec::new(),
            bound: adapted.bank().bound(),
            method: adapted.config().method.name().to_string(),
            refused: None,
            tied: adapted
                .bank()
                .groups()
                .iter()
                .flat_map(|group| &group.sites)
                .flat_map(places)
                .collect(),
            ids: HashMap::new(),
        }
    }

    /// `param` with other elements, and so with an id of its own, which the places of a tied weight that were changed alike
    /// share.
    fn changed<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>, to: Tensor<D>) -> Param<Tensor<D>> {
        let site = self.tied.get(path).map_or(path, String::as_str).to_string();
        let id = *self.ids.entry(site).or_default(); // a new one by default
        let (_, before, mapper) = param.consume();
        Param::from_mapped_value(id, to.set_require_grad(before.is_require_grad()), mapper)
    }

    /// Path and bound state of the current parameter, if it is adapted and nothing has been refused yet.
    fn here(&mut self) -> Option<(String, Bound)> {
        if self.refused.is_some() {
            return None;
        }
        let site = self.path.join(".");
        let bound = self.bound.get(&site)?.clone();
        let field = self.path.last().map_or("", String::as_str);
        if field == EDIT_POINT || field == TOKEN_POINT || bound.edit().adds_to_output() {
            self.refused = Some(AdapterError::NotMergeable {
                method: self.method.clone(),
                site: site.rsplit_once('.').map_or("", |(module, _)| module).to_string(),
            });
            return None;
        }
        Some((site, bound))
    }

    /// False if an element of `tensor` is not finite; the reason is noted.
    fn finite<const D: usize>(&mut self, site: &str, tensor: &Tensor<D>) -> bool {
        let count = tensor.clone().is_finite().bool_not().int().sum().into_scalar::<i64>();
        if count > 0 {
            self.refused = Some(AdapterError::NotFinite {
                site: site.to_string(),
                count: count as usize,
            });
        }
        count == 0
    }
}

struct Merger {
    walk: Walk,
    report: MergeReport,
}

impl ModuleMapper for Merger {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.walk.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.walk.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((path, bound)) = self.walk.here() else {
            return param;
        };
        let base = param.base();
        let before = wide(base.clone().detach());
        let after = bound.merged(before.clone()).detach();
        let stored = match is_quantized(base.dtype()) {
            true => after.clone(),
            false => after.clone().cast(base.dtype()),
        };
        if !self.walk.finite(&path, &stored) {
            return param;
        }
        let change = (after.clone() - before.clone()).abs();
        let shape = change.dims();
        let flat = change.clone().reshape([change.shape().num_elements()]);
        let index = flat.clone().argmax(0).into_scalar::<i64>() as usize;
        self.report.changes.push(WeightChange {
            site: path.clone(),
            greatest: greatest(flat),
            at: place(index, &shape),
            relative: norm(change) / norm(before).max(f64::MIN_POSITIVE),
            rounding: greatest(wide(stored.clone()) - after),
        });
        self.walk.changed(&path, param, stored)
    }
}

struct Unmerger {
    walk: Walk,
    report: UnmergeReport,
}

impl ModuleMapper for Unmerger {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.walk.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.walk.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((path, bound)) = self.walk.here() else {
            return param;
        };
        let base = param.base();
        let merged = wide(base.clone().detach());
        let shape = merged.shape();
        let before = match D {
            1 => {
                let bias = merged.clone().reshape([shape[0]]);
                bound.edit().unmerged_bias(bias).map(|bias| bias.reshape(shape))
            }
            _ => {
                let weight = as_matrix(merged.clone());
                bound.edit().unmerged(weight).map(|weight| weight.reshape(shape))
            }
        };
        let Some(before) = before else {
            self.walk.refused = Some(AdapterError::NotInvertible {
                method: self.walk.method.clone(),
                site: path,
                message: "its merge cannot be undone; load the backbone's own weights instead".into(),
            });
            return param;
        };
        let before: Tensor<D> = before.detach();
        let stored = match is_quantized(base.dtype()) {
            true => before,
            false => before.cast(base.dtype()),
        };
        if !self.walk.finite(&path, &stored) {
            return param;
        }
        let again = bound.merged(wide(stored.clone())).detach();
        self.report.recovered.push(Recovery {
            site: path.clone(),
            left: greatest(again - merged),
        });
        self.walk.changed(&path, param, stored)
    }
}

/// The other places of a site's weight, and its path.
fn places(site: &Site) -> impl Iterator<Item = (String, String)> {
    site.tied.iter().map(|place| (place.clone(), site.path.clone()))
}

/// `tensor` in a type precise enough to add in: f64 stays, all others become f32.
fn wide<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    let tensor = dequantized(tensor);
    match tensor.dtype() {
        DType::F32 | DType::F64 => tensor,
        _ => tensor.cast(FloatDType::F32),
    }
}

fn greatest<const D: usize>(tensor: Tensor<D>) -> f64 {
    tensor.abs().max().into_scalar::<f64>()
}

fn norm<const D: usize>(tensor: Tensor<D>) -> f64 {
    tensor.powi_scalar(2).sum().into_scalar::<f64>().sqrt()
}

/// Position of the `index`-th element of a tensor of that shape.
fn place(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut place: Vec<usize> = shape
        .iter()
        .rev()
        .map(|size| {
            let here = index % size;
            index /= size;
            here
        })
        .collect();
    place.reverse();
    place
}
