//! Rows of an embedding that are trained in full, beside another method (PEFT's `trainable_token_indices`) or on their own
//! (its TRAINABLE_TOKENS). The bank holds the trained rows, `[tokens, d_model]`, which start as copies of the table's. In a
//! head, which is a linear layer, they are the rows of PyTorch's weight: those that compute the logits of these tokens.

use std::sync::Arc;

use burn::tensor::{DType, Device, IndexingUpdateOp, Int, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Spec};
use crate::group::Group;
use crate::method::{self, Method};
use crate::nearest::nearest;
use crate::select::tied;
use crate::site::{ParamInfo, Places, Site, SiteKind, name_matches};
use crate::targets::{Targets, TokenIndices};
use crate::tensor::cast;
use crate::weights::Weights;

const FIELD: &str = "trainable_token_indices";
/// Name of a layer's adapter on disk where the rows stand beside a method, with a dot.
const HOLDER: &str = "token_adapter.";
/// Name of the rows on disk.
const ROWS: &str = "trainable_tokens_delta";

/// The layer whose rows, trained beside a method, are stored under `key`.
pub(crate) fn layer_of_rows(key: &str) -> Option<&str> {
    key.strip_suffix(ROWS)?.strip_suffix(HOLDER)?.strip_suffix('.')
}

/// The rows; their indices are a field of the targets.
#[derive(Debug, Clone)]
pub(crate) struct TokenRows {
    indices: TokenIndices,
    /// Name of a layer's adapter on disk, with a dot; empty if the method is used on its own.
    holder: &'static str,
}

/// Settings of TRAINABLE_TOKENS. `target_modules` names the embedding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainableTokensConfig {
    /// Rows of the embedding that are trained.
    pub token_indices: Vec<usize>,
}

impl TrainableTokensConfig {
    /// Trains these rows.
    pub fn new(token_indices: impl IntoIterator<Item = usize>) -> Self {
        Self {
            token_indices: token_indices.into_iter().collect(),
        }
    }

    fn rows(&self) -> TokenRows {
        TokenRows {
            indices: TokenIndices::All(self.token_indices.clone()),
            holder: "",
        }
    }
}

impl Method for TrainableTokensConfig {
    fn name(&self) -> &'static str {
        "TRAINABLE_TOKENS"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn sites(&self, places: &Places, targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        let sites = targets.weights(places)?;
        self.rows().check(sites)
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        self.rows().specs(group)
    }

    fn start(&self, group: &Group, weights: &Weights, device: &Device) -> Result<Factors, AdapterError> {
        self.rows().start(group, weights, device)
    }

    fn bind(&self, group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        self.rows().bind(group, factors)
    }
}

impl TokenRows {
    pub(crate) fn new(indices: TokenIndices) -> Self {
        Self {
            indices,
            holder: HOLDER,
        }
    }

    /// `sites`, if each has all of the rows.
    fn check(&self, sites: Vec<Site>) -> Result<Vec<Site>, AdapterError> {
        let field = if self.holder.is_empty() { "token_indices" } else { FIELD };
        let bad = |message: String| Err(AdapterError::bad_field(field, message));
        for site in &sites {
            let indices = self.of(&site.module());
            if indices.is_empty() {
                return bad(format!("names no token of '{}'", site.module()));
            }
            let (rows, _) = table(site);
            if let Some(index) = indices.iter().find(|index| **index >= rows) {
                return bad(format!(
                    "'{}' has {rows} rows, so there is no row {index}",
                    site.module()
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

/// What the embedding of tokens is called in transformers' decoders and encoders.
const TOKEN_EMBEDDINGS: [&str; 4] = ["embed_tokens", "wte", "word_embeddings", "tok_embeddings"];

impl Method for TokenRows {
    fn name(&self) -> &'static str {
        "TRAINABLE_TOKENS"
    }

    fn settings(&self) -> Map<String, Value> {
        Map::new()
    }

    fn sites(&self, places: &Places, targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        let is_table = |param: &&ParamInfo| SiteKind::of(param) == Some(SiteKind::Embedding);
        let tables: Vec<&ParamInfo> = places.params.iter().filter(is_table).collect();
        // A name can also mean a head.
        let is_head = |param: &&ParamInfo| is_table(param) || param.is_linear_weight();
        let heads: Vec<&ParamInfo> = places.params.iter().filter(is_head).collect();
        let bad = |message: String| Err(AdapterError::bad_field(FIELD, message));
        let chosen = match &self.indices {
            TokenIndices::All(_) => {
                // If there is a position embedding too, the token embedding is found by its name.
                let of_tokens =
                    |table: &&ParamInfo| TOKEN_EMBEDDINGS.iter().any(|name| name_matches(table.name(), name));
                let by_name: Vec<&ParamInfo> = tables.iter().copied().filter(of_tokens).collect();
                match (tables.len(), by_name.len()) {
                    (0, _) => return bad("the model has no embedding".to_string()),
                    (1, _) => tables,
                    (_, 1) => by_name,
                    (count, _) => {
                        let names = nearest(&tables, "embed_tokens");
                        return bad(format!("the model has {count} embeddings; name those meant: {names}"));
                    }
                }
            }
            TokenIndices::ByModule(_) if heads.is_empty() => {
                return bad("the model has neither an embedding nor a linear layer".to_string());
            }
            TokenIndices::ByModule(by_module) => {
                let likely = if tables.is_empty() { &heads } else { &tables };
                for name in by_module.keys() {
                    if !heads.iter().any(|table| name_matches(table.name(), name)) {
                        return Err(AdapterError::NoMatch {
                            field: FIELD,
                            pattern: name.clone(),
                            nearest: nearest(likely, name),
                        });
                    }
                }
                let named = |table: &&ParamInfo| by_module.keys().any(|name| name_matches(table.name(), name));
                heads.into_iter().filter(named).collect()
            }
        };
        let sites = chosen.into_iter().map(|table| {
            let kind = SiteKind::of(table).unwrap_or_default();
            Site::weight(table, kind)
        });
        let sites: Vec<Site> = sites.collect();
        // Two places with other rows each are two sites, tied or not.
        let alike = |pair: &[Site]| self.of(&pair[0].module()) == self.of(&pair[1].module());
        let sites = match targets.ensure_weight_tying && sites.windows(2).all(alike) {
            true => tied(sites, &places.params),
            false => sites,
        };
        self.check(sites)
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        let tokens = self.of(&group.module()).len();
        let spec = Spec::new(
            "rows",
            format!("{}{ROWS}", self.holder),
            [tokens, table(group.site()).1],
        );
        vec![spec.without_decay()]
    }

    fn start(&self, group: &Group, weights: &Weights, device: &Device) -> Result<Factors, AdapterError> {
        let table = weights.matrix(group.site());
        let table = match is_table(group.site()) {
            true => table,
            false => table.transpose(),
        };
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
            of_table: is_table(group.site()),
            beside: !self.holder.is_empty(),
        })
    }
}

/// True for an embedding or a bare matrix, whose rows are those of PyTorch's weight; false for a linear layer, where they
/// are the columns.
fn is_table(site: &Site) -> bool {
    site.kind == SiteKind::Embedding || !site.transposed
}

/// Rows and width of the weight in PyTorch's orientation.
fn table(site: &Site) -> (usize, usize) {
    match is_table(site) {
        true => (site.d_in, site.d_out),
        false => (site.d_out, site.d_in),
    }
}

fn indices(indices: &[usize], device: &Device) -> Tensor<1, Int> {
    let indices: Vec<i64> = indices.iter().map(|index| *index as i64).collect();
    Tensor::from_ints(indices.as_slice(), device)
}

/// The edit of a bound table.
#[derive(Debug)]
struct BoundTokens {
    /// `[tokens, d_model]`
    rows: Tensor<2>,
    indices: Vec<usize>,
    /// False for a linear layer, whose columns in Burn are these rows.
    of_table: bool,
    /// True if the rows stand beside a method.
    beside: bool,
}

impl Edit for BoundTokens {
    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        let ids = indices(&self.indices, &weight.device());
        let rows = cast(self.rows.clone(), weight.dtype());
        let (dim, rows) = match self.of_table {
            true => (0, rows),
            false => (1, rows.transpose()),
        };
        let change = rows - weight.clone().select(dim, ids.clone());
        weight
            .zeros_like()
            .select_assign(dim, ids, change, IndexingUpdateOp::Add)
    }

    fn beside_a_method(&self) -> bool {
        self.beside
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
