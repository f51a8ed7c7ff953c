//! Binding a batch whose rows use different adapters.

use std::collections::{HashMap, HashSet};

use burn::module::{Module, ModuleDisplay, ModuleVisitor, Param, Reparameterizer};
use burn::tensor::Tensor;

use crate::adapted::Adapted;
use crate::adapters::{Adapters, BASE};
use crate::edit::Bound;
use crate::error::AdapterError;
use crate::rows;
use crate::site::{self, ParamInfo};

impl<M: Module + ModuleDisplay> Adapters<M> {
    /// The backbone bound for one forward pass over a batch whose example `i` uses the adapter `names[i]` (`"__base__"`:
    /// none). The model must call [`crate::linear`] and [`crate::embedding`] for its adapted layers, and the first
    /// dimension of their inputs must be the batch, as in `[batch, tokens, d_model]`, or all tokens of all examples,
    /// `[batch·tokens, d_model]`. Each example goes through its own adapter, including heads and other linear layers
    /// trained in full.
    ///
    /// # Errors
    /// An unknown name, an empty batch, an adapter that trains something other than linear layers or edits something other
    /// than linear layers, embeddings and hooks, such as norms or convolutions, or prompts of different lengths.
    ///
    /// # Panics
    /// The forward pass panics if the input of an adapted layer has another number of examples, or if the layer is called by
    /// `Linear::forward` or `Embedding::forward`, which can use only one weight.
    pub fn bind_rows(&self, names: &[&str]) -> Result<M, AdapterError> {
        let mut distinct: Vec<(&str, Vec<usize>)> = Vec::new();
        for (row, name) in names.iter().enumerate() {
            match distinct.iter_mut().find(|(known, _)| known == name) {
                Some((_, rows)) => rows.push(row),
                None => distinct.push((name, vec![row])),
            }
        }
        if distinct.is_empty() {
            return Err(AdapterError::NoRows);
        }
        let mut shares = Vec::new();
        for (name, rows) in distinct {
            let bound = match name {
                BASE => HashMap::new(),
                name => bound(name, self.get(name)?)?,
            };
            shares.push((rows, bound));
        }
        let paths: HashSet<&String> = shares.iter().flat_map(|(_, bound)| bound.keys()).collect();
        let params = site::params(self.backbone());
        let mut by_path = HashMap::new();
        for path in paths {
            let of_path =
                |(rows, bound): &(Vec<usize>, HashMap<String, Bound>)| (rows.clone(), bound.get(path).cloned());
            let here: Vec<(Vec<usize>, Option<Bound>)> = shares.iter().map(of_path).collect();
            if let Some(problem) = problem(path, &here, &params) {
                return Err(AdapterError::Adapter {
                    name: names.join(", "),
                    message: format!(
                        "'{path}' is {problem} and cannot differ between the rows of a batch; use switch() to change adapters instead"
                    ),
                });
            }
            by_path.insert(path.clone(), rows::rows(names.len(), here));
        }
        Ok(self.backbone().clone().apply_reparameterization(RowBinder { by_path }))
    }
}

/// Why rows of a batch cannot differ in this parameter.
fn problem(path: &str, shares: &[(Vec<usize>, Option<Bound>)], params: &[ParamInfo]) -> Option<&'static str> {
    let no_layer = |param: &ParamInfo| param.path == path && param.shape.len() == 1 && param.holder != "Linear";
    // Only `linear` and `embedding` know the rows of a batch; anything else reads one weight for all of them.
    let calls = ["Linear", "Embedding"];
    let no_call = |param: &ParamInfo| param.path == path && !calls.contains(&param.holder.as_str());
    // Rows with different numbers of prompt tokens would have different lengths.
    let added =
        |(_, bound): &(Vec<usize>, Option<Bound>)| bound.as_ref().map_or(0, |bound| bound.edit().added_tokens());
    let adds_virtual = |bound: &Bound| bound.edit().virtual_tokens().is_some();
    if params.iter().any(no_layer) {
        Some("not part of a linear layer")
    } else if params.iter().any(no_call) {
        Some("neither the weight of a linear layer nor the table of an embedding")
    } else if shares.iter().any(|share| added(share) != added(&shares[0])) {
        Some("given prompt tokens by only some of the adapters")
    } else if shares.iter().any(|(_, bound)| bound.as_ref().is_some_and(adds_virtual)) {
        Some("a place for virtual tokens")
    } else {
        None
    }
}

/// What one adapter binds, by path: the bound state of its bank, and its weights of layers trained in full.
fn bound<M: Module + ModuleDisplay>(name: &str, adapted: &Adapted<M>) -> Result<HashMap<String, Bound>, AdapterError> {
    let mut owns = Owns {
        path: Vec::new(),
        own: own_params(name, adapted)?.into_iter().map(|param| param.path).collect(),
        bound: adapted.bank().bound(),
    };
    adapted.backbone().visit(&mut owns);
    Ok(owns.bound)
}

/// An adapter's own weights and biases of linear layers, which can differ between the rows of a batch.
fn own_params<M: Module + ModuleDisplay>(name: &str, adapted: &Adapted<M>) -> Result<Vec<ParamInfo>, AdapterError> {
    let saved = adapted.own_params();
    match saved.iter().find(|param| param.holder != "Linear") {
        None => Ok(saved),
        Some(param) => Err(AdapterError::Adapter {
            name: name.to_string(),
            message: format!(
                "it trains '{}', which does not belong to a linear layer and cannot differ between the rows of a batch; use switch() to use this adapter",
                param.path
            ),
        }),
    }
}

struct Owns {
    path: Vec<String>,
    own: Vec<String>,
    bound: HashMap<String, Bound>,
}

impl ModuleVisitor for Owns {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        if !self.own.contains(&path) {
            return;
        }
        self.bound.insert(path, rows::own(param.clone()));
    }
}

struct RowBinder {
    by_path: HashMap<String, Bound>,
}

impl Reparameterizer for RowBinder {
    type Reparam = Bound;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Bound>) {
        (param, self.by_path.remove(path))
    }
}
