//! ReFT (Representation Fine-Tuning, Wu et al. 2024, arXiv 2404.03592): low-rank edits of hidden states at the
//! first and last tokens.
//!
//! - LoReFT: `h + Rᵀ(W h + b − R h)`, R `[r, d]` with orthonormal rows. R stays orthonormal because the trained
//!   parameters are r reflection vectors of the same shape, and each forward pass computes R as the product of their
//!   reflections;
//! - DiReFT: `h + W₂ᵀ(W₁ h + b)`.
//!
//! The weights start at random, as in the authors' library, so the adapted model does not start as the frozen one. The
//! paper's settings for LLaMA 7B: r = 8, positions f7+l7 with shared weights, the output of every layer.
//!
//! In a model that says where its prompts are ([`Hook::forward_in`](crate::Hook::forward_in), as decoders do), positions are
//! counted within each prompt, as in the paper: neither padding nor what follows a prompt is edited, so that generation
//! works with the adapter bound. In other models they are counted within the tokens of the forward pass.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::check_probability;
use super::orthonormal::{random_reflectors, rotation};
use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Init, Spec};
use crate::group::Group;
use crate::method::{self, Method};
use crate::prompts::Prompts;
use crate::site::{Places, Site};
use crate::targets::{TargetField, Targets};
use crate::tensor::{cast, dropped, for_products};
use crate::weights::Weights;

/// The formula of the edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intervention {
    /// `h + Rᵀ(W h + b − R h)`
    Loreft,
    /// `h + W₂ᵀ(W₁ h + b)`
    Direft,
}

/// Which tokens are edited; on disk `all`, or the first and last n, such as `f7+l7`, `f5` or `l1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Positions {
    /// All of them.
    All,
    /// The first and last ones.
    Ends {
        /// Number of first tokens.
        first: usize,
        /// Number of last tokens.
        last: usize,
    },
}

impl TryFrom<String> for Positions {
    type Error = AdapterError;

    fn try_from(text: String) -> Result<Self, AdapterError> {
        if text == "all" {
            return Ok(Self::All);
        }
        let (mut first, mut last) = (0, 0);
        for part in text.split('+') {
            let count = |letter| part.strip_prefix(letter).and_then(|n| n.parse::<usize>().ok());
            match (count('f'), count('l')) {
                (Some(n), _) => first = n,
                (_, Some(n)) => last = n,
                _ => {
                    let message = format!("'{text}' names no tokens; write it as f7+l7, f5, l1 or all");
                    return Err(AdapterError::bad_field("position", message));
                }
            }
        }
        Ok(Self::Ends { first, last })
    }
}

impl From<Positions> for String {
    fn from(positions: Positions) -> Self {
        match positions {
            Positions::All => "all".to_string(),
            Positions::Ends { first, last } => format!("f{first}+l{last}"),
        }
    }
}

/// Settings of ReFT. `target_modules` names hooks; by default the `output` of every block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReftConfig {
    /// Rank of the edit.
    pub r: usize,
    /// LoReFT or DiReFT.
    pub intervention: Intervention,
    /// The tokens that are edited.
    pub position: Positions,
    /// Whether first and last tokens share one set of weights.
    pub share_weights: bool,
    /// Dropout on the edit, in training.
    #[serde(default)]
    pub dropout: f64,
}

impl ReftConfig {
    /// LoReFT of rank `r` on the first and last seven tokens, with shared weights.
    pub fn loreft(r: usize) -> Self {
        Self {
            r,
            intervention: Intervention::Loreft,
            position: Positions::Ends { first: 7, last: 7 },
            share_weights: true,
            dropout: 0.0,
        }
    }

    /// DiReFT of rank `r` on the first and last seven tokens, with shared weights.
    pub fn direft(r: usize) -> Self {
        Self {
            intervention: Intervention::Direft,
            ..Self::loreft(r)
        }
    }

    /// Sets the edited tokens.
    pub fn with_position(mut self, position: Positions) -> Self {
        self.position = position;
        self
    }

    /// Sets whether first and last tokens share one set of weights.
    pub fn with_share_weights(mut self, share: bool) -> Self {
        self.share_weights = share;
        self
    }

    /// Sets the dropout on the edit.
    pub fn with_dropout(mut self, p: f64) -> Self {
        self.dropout = p;
        self
    }

    /// Number of sets of weights.
    fn edits(&self) -> usize {
        match self.position {
            Positions::Ends { first, last } if !self.share_weights && first > 0 && last > 0 => 2,
            _ => 1,
        }
    }
}

impl Method for ReftConfig {
    fn name(&self) -> &'static str {
        "REFT"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn reads(&self) -> &'static [TargetField] {
        TargetField::OF_PLACES
    }

    fn sites(&self, places: &Places, targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        targets.hooks(places, &["output"])
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        check_probability("dropout", self.dropout)?;
        if self.position == (Positions::Ends { first: 0, last: 0 }) {
            return Err(AdapterError::bad_field(
                "position",
                "names no token; write it as f7+l7, f5, l1 or all",
            ));
        }
        let mut groups = Group::each(sites);
        for group in &mut groups {
            group.rank = self.r;
            group.check_rank(|site| site.d_in)?;
        }
        Ok(groups)
    }

    /// For each set: the reflection vectors of R, or W₂, `[r, d]`; W, or W₁, `[r, d]`; b, `[r]`.
    fn specs(&self, group: &Group) -> Vec<Spec> {
        let (r, d) = (self.r, group.site().d_in);
        let uniform = Init::Uniform(1.0 / (d as f64).sqrt());
        let spec = |edit: usize, field: &str, shape: Vec<usize>| {
            let name = format!("edits.{edit}.{field}");
            Spec::new(name.clone(), format!("reft_{name}"), shape).with_init(uniform)
        };
        let edit = |edit| {
            [
                spec(edit, "write", vec![r, d]),
                spec(edit, "read", vec![r, d]),
                spec(edit, "bias", vec![r]),
            ]
        };
        (0..self.edits()).flat_map(edit).collect()
    }

    fn start(&self, group: &Group, _weights: &Weights, device: &Device) -> Result<Factors, AdapterError> {
        // In the order of the specs, in which random numbers are drawn.
        let start = |spec: Spec| {
            let name = spec.name.clone();
            match self.intervention == Intervention::Loreft && name.ends_with("write") {
                true => {
                    let reflectors = random_reflectors(self.r, group.site().d_in, device);
                    Factors::draw(vec![spec.with_init(Init::Zeros)], device).with(&name, reflectors)
                }
                false => Factors::draw(vec![spec], device),
            }
        };
        let each = self.specs(group).into_iter().map(start);
        Ok(each.fold(Factors::default(), |all, one| all.joined(&one)))
    }

    fn bind(&self, _group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        let (first, last) = match self.position {
            Positions::All => (usize::MAX, 0),
            Positions::Ends { first, last } => (first, last),
        };
        let edit = |edit: usize| BoundFactor {
            write: factors.matrix(&format!("edits.{edit}.write")),
            read: factors.matrix(&format!("edits.{edit}.read")),
            bias: factors.vector(&format!("edits.{edit}.bias")),
        };
        Arc::new(BoundReft {
            factors: (0..self.edits()).map(edit).collect(),
            rotates: self.intervention == Intervention::Loreft,
            edits: OnceLock::new(),
            first,
            last,
            dropout: self.dropout,
        })
    }

    fn merges(&self) -> bool {
        false
    }
}

/// The edit of a bound hook.
#[derive(Debug)]
struct BoundReft {
    /// As they are trained.
    factors: Vec<BoundFactor>,
    /// True if `write` holds the reflection vectors of R.
    rotates: bool,
    /// The matrices that act; R is computed when it is first needed.
    edits: OnceLock<Vec<BoundFactor>>,
    first: usize,
    last: usize,
    dropout: f64,
}

/// `h + writeᵀ(read h + bias)`
#[derive(Debug)]
struct BoundFactor {
    write: Tensor<2>,
    read: Tensor<2>,
    bias: Tensor<1>,
}

impl BoundFactor {
    fn edit(&self, h: Tensor<3>, dropout: f64) -> Tensor<3> {
        let [batch, tokens, d] = h.dims();
        let change = self.change(h.clone().reshape([batch * tokens, d]), dropout);
        h + change.reshape([batch, tokens, d])
    }

    /// The edit that is added to `rows`, `[n, d]`.
    fn change(&self, rows: Tensor<2>, dropout: f64) -> Tensor<2> {
        let dtype = rows.dtype();
        let rows = for_products(rows);
        let in_products = rows.dtype();
        let matrix = |factor: &Tensor<2>| cast(factor.clone(), in_products);
        let bias = cast(self.bias.clone(), in_products).unsqueeze::<2>();
        let code = rows.matmul(matrix(&self.read).transpose()) + bias;
        cast(dropped(code.matmul(matrix(&self.write)), dropout), dtype)
    }
}

impl BoundReft {
    fn edits(&self) -> &[BoundFactor] {
        let rotated = |factor: &BoundFactor| {
            let r = rotation(factor.write.clone());
            BoundFactor {
                read: factor.read.clone() - r.clone(),
                write: r,
                bias: factor.bias.clone(),
            }
        };
        match self.rotates {
            true => self.edits.get_or_init(|| self.factors.iter().map(rotated).collect()),
            false => &self.factors,
        }
    }
}

impl Edit for BoundReft {
    fn activation(&self, h: Tensor<3>) -> Tensor<3> {
        let edits = self.edits();
        let [_, tokens, _] = h.dims();
        let first = self.first.min(tokens);
        let last = self.last.min(tokens - first);
        let middle = tokens - first - last;
        let (start, end) = (&edits[0], &edits[edits.len() - 1]);
        if middle == 0 && edits.len() == 1 {
            return start.edit(h, self.dropout);
        }
        let part = |from, length| h.clone().narrow(1, from, length);
        let mut parts = Vec::with_capacity(3);
        if first > 0 {
            parts.push(start.edit(part(0, first), self.dropout));
        }
        if middle > 0 {
            parts.push(part(first, middle));
        }
        if last > 0 {
            parts.push(end.edit(part(first + middle, last), self.dropout));
        }
        Tensor::cat(parts, 1)
    }

    fn activation_in(&self, h: Tensor<3>, prompts: &Prompts) -> Tensor<3> {
        if self.first == usize::MAX {
            return self.activation(h); // all tokens
        }
        let [batch, tokens, d] = h.dims();
        let device = h.device();
        let edits = self.edits();
        let is_first = |place: &[usize; 2]| place[0] < self.first;
        let is_last = |place: &[usize; 2]| !is_first(place) && place[1] < self.last;
        let rows_of = |chosen: &dyn Fn(&[usize; 2]) -> bool| -> Vec<i64> {
            let places = prompts.places.iter().enumerate();
            let chosen = places.filter(|(_, place)| place.as_ref().is_some_and(chosen));
            chosen.map(|(row, _)| row as i64).collect()
        };
        // With shared weights, both ends are one product.
        let ends = match edits {
            [one] => vec![(one, rows_of(&|place| is_first(place) || is_last(place)))],
            _ => vec![(&edits[0], rows_of(&is_first)), (&edits[1], rows_of(&is_last))],
        };
        let mut rows = h.reshape([batch * tokens, d]);
        for (edit, indices) in ends {
            if indices.is_empty() {
                continue;
            }
            let indices = Tensor::<1, Int>::from_ints(indices.as_slice(), &device);
            let change = edit.change(rows.clone().select(0, indices.clone()), self.dropout);
            rows = rows.select_assign(0, indices, change, IndexingUpdateOp::Add);
        }
        rows.reshape([batch, tokens, d])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::methods::laws::Case;
    use crate::{AdapterConfig, Hook};

    #[test]
    fn keeps_the_laws() {
        let ends = Positions::Ends { first: 1, last: 1 };
        let loreft = ReftConfig::loreft(3).with_position(ends);
        for config in [
            loreft.clone(),
            loreft.with_share_weights(false),
            ReftConfig::direft(2).with_position(Positions::All),
            ReftConfig::direft(2),
        ] {
            Case::new(AdapterConfig::new(config)).starting_elsewhere().check();
        }
    }

    #[test]
    fn positions_count_within_each_prompt_of_a_row() {
        let (device, d) = (Device::flex().autodiff(), 5);
        for share in [true, false] {
            let ends = Positions::Ends { first: 2, last: 1 };
            let config = ReftConfig::loreft(2).with_position(ends).with_share_weights(share);
            let group = Group::each(&[Site::hook("output", d)]).remove(0);
            let group = config.groups(&group.sites).unwrap().remove(0);
            let none = Weights::of(&Hook::new(d, &device), &[]);
            let edit = config.bind(&group, &config.start(&group, &none, &device).unwrap());
            let random = |tokens: usize| Tensor::<3>::random([1, tokens, d], Distribution::Default, &device);
            // Prompts of 4 and of 2 tokens, each with an answer of one token, padding at the end.
            let (long, short, answer) = (random(4), random(2), random(1));
            let parts = [&long, &answer, &short, &answer, &answer].map(Tensor::clone);
            let row = Tensor::cat(parts.to_vec(), 1);
            let prompt = |length: usize| (0..length).map(move |place| Some([place, length - 1 - place]));
            let places = prompt(4).chain([None]).chain(prompt(2)).chain([None, None]).collect();
            let found = edit.activation_in(row, &Prompts { places });
            let parts = [
                edit.activation(long),
                answer.clone(),
                edit.activation(short),
                answer.clone(),
                answer,
            ];
            let expected = Tensor::cat(parts.to_vec(), 1);
            let difference = (found - expected).abs().max().into_scalar::<f32>();
            assert!(difference < 1e-6, "{difference}");
        }
    }
}
