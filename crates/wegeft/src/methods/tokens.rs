//! Rows of an embedding that are trained in full beside whatever the method does: PEFT's `trainable_token_indices`. The
//! bank holds the rows in place of the table's, `[tokens, d_model]`; they start as the table's own.

use std::sync::Arc;

use burn::tensor::{DType, Device, IndexingUpdateOp, Int, Tensor};
use serde_json::{Map, Value};

use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Spec};
use crate::group::Group;
use crate::method::Method;
use crate::nearest::nearest;
use crate::site::{ParamInfo, Places, Site, SiteKind, name_matches};
use crate::targets::{Targets, TokenIndices};
use crate::tensor::cast;
use crate::weights::Weights;

const FIELD: &str = "trainable_token_indices";

/// The rows; their indices are a field of the targets.
#[derive(Debug, Clone)]
pub(crate) struct TokenRows {
    indices: TokenIndices,
}

impl TokenRows {
    pub(crate) fn new(indices: TokenIndices) -> Self {
        Self { indices }
    }

    fn of(&self, module: &str) -> &[usize] {
        match &self.indices {
            TokenIndices::All(indices) => indices,
            TokenIndices::ByModule(by_module) => {
                let mut named = by_module.iter();
                let found = named.find(|(name, _)| name_matches(module, name));
                found.map_or(&[], |(_, indices)| indices)
            }
        }
    }
}

impl Method for TokenRows {
    fn name(&self) -> &'static str {
        "TRAINABLE_TOKENS"
    }

    fn settings(&self) -> Map<String, Value> {
        Map::new()
    }

    fn sites(&self, places: &Places, _targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        let is_table = |param: &&ParamInfo| SiteKind::of(param) == Some(SiteKind::Embedding);
        let tables: Vec<&ParamInfo> = places.params.iter().filter(is_table).collect();
        let bad = |message: String| Err(AdapterError::bad_field(FIELD, message));
        let chosen = match &self.indices {
            TokenIndices::All(_) if tables.len() != 1 => {
                let names = nearest(&tables, "embed_tokens");
                return bad(format!(
                    "the model has {} embeddings; name those meant: {names}",
                    tables.len()
                ));
            }
            TokenIndices::All(_) => tables,
            TokenIndices::ByModule(by_module) => {
                for name in by_module.keys() {
                    if !tables.iter().any(|table| name_matches(table.name(), name)) {
                        return Err(AdapterError::NoMatch {
                            field: FIELD,
                            pattern: name.clone(),
                            nearest: nearest(&tables, name),
                        });
                    }
                }
                let named = |table: &&ParamInfo| by_module.keys().any(|name| name_matches(table.name(), name));
                tables.into_iter().filter(named).collect()
            }
        };
        let sites: Vec<Site> = chosen
            .into_iter()
            .map(|table| Site::weight(table, SiteKind::Embedding))
            .collect();
        for site in &sites {
            let indices = self.of(&site.module());
            if indices.is_empty() {
                return bad(format!("names no token of '{}'", site.module()));
            }
            if let Some(index) = indices.iter().find(|index| **index >= site.d_in) {
                return bad(format!(
                    "'{}' has {} rows, and no row {index}",
                    site.module(),
                    site.d_in
                ));
            }
            let mut sorted = indices.to_vec();
            sorted.sort_unstable();
            if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                return bad(format!("names token {} of '{}' twice", twice[0], site.module()));
            }
        }
        Ok(sites)
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        let tokens = self.of(&group.module()).len();
        let spec = Spec::new(
            "rows",
            "token_adapter.trainable_tokens_delta",
            [tokens, group.site().d_out],
        );
        vec![spec.without_decay()]
    }

    fn start(&self, group: &Group, weights: &Weights, device: &Device) -> Result<Factors, AdapterError> {
        let table = weights.matrix(group.site());
        let rows = table
            .clone()
            .select(0, indices(self.of(&group.module()), &table.device()));
        let rows = Tensor::<2>::from_data(rows.into_data(), (device, DType::F32));
        Ok(Factors::draw(self.specs(group), device).with("rows", rows))
    }

    fn bind(&self, group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        Arc::new(BoundTokens {
            rows: factors.matrix("rows"),
            indices: self.of(&group.module()).to_vec(),
        })
    }
}

fn indices(indices: &[usize], device: &Device) -> Tensor<1, Int> {
    let indices: Vec<i64> = indices.iter().map(|index| *index as i64).collect();
    Tensor::from_ints(indices.as_slice(), device)
}

/// The rows as a bound table sees them.
#[derive(Debug)]
struct BoundTokens {
    /// `[tokens, d_model]`
    rows: Tensor<2>,
    indices: Vec<usize>,
}

impl Edit for BoundTokens {
    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        let ids = indices(&self.indices, &weight.device());
        let change = cast(self.rows.clone(), weight.dtype()) - weight.clone().select(0, ids.clone());
        weight.zeros_like().select_assign(0, ids, change, IndexingUpdateOp::Add)
    }

    fn rows(&self, ids: Tensor<1, Int>, weight: Tensor<2>) -> Tensor<2> {
        let own = indices(&self.indices, &ids.device());
        let frozen = weight.select(0, ids.clone());
        // 1 where a looked-up token is a trained one, `[n, tokens]`.
        let chosen = ids.unsqueeze_dim::<2>(1).equal(own.unsqueeze_dim::<2>(0));
        let chosen = cast(chosen.float(), frozen.dtype());
        let keep = chosen.clone().sum_dim(1).neg().add_scalar(1.0);
        frozen.clone() * keep + chosen.matmul(cast(self.rows.clone(), frozen.dtype()))
    }
}
