//! VPT (Visual Prompt Tuning, Jia et al. 2022, arXiv 2203.12119): learned tokens after the CLS token, at the first
//! block only (shallow), or at every block in place of those before (deep).
//!
//! They start as U(±√(6 / (3·patch² + d))), the authors' Xavier-uniform over a patch and a token; 5 tokens, deep,
//! are the setting of WeGeFT's vision experiments. There is no dropout on them. A backbone
//! that pools over patch tokens leaves the prompts out.

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use serde::{Deserialize, Serialize};

use super::{Edit, Factors, Recipe, cast};
use crate::bank::{Group, own_groups};
use crate::config::Targets;
use crate::error::AdapterError;
use crate::select;
use crate::site::{Places, Site};
use crate::weights::Weights;

/// Settings of VPT. `target_modules` names hooks; without, every block's `input`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VptConfig {
    /// Number of prompt tokens; PEFT's name in its prompt methods.
    pub num_virtual_tokens: usize,
    /// Prompts of its own for every block.
    pub deep: bool,
    /// Side of a patch in pixels; only the start depends on it.
    #[serde(default = "patch_size")]
    pub patch_size: usize,
    /// Tokens before the prompts: 1 for a CLS token, 0 for a backbone without.
    #[serde(default = "prefix_tokens")]
    pub prefix_tokens: usize,
}

fn patch_size() -> usize {
    16
}

fn prefix_tokens() -> usize {
    1
}

impl VptConfig {
    /// That many prompt tokens, for patches of 16 pixels, after a CLS token.
    pub fn new(num_virtual_tokens: usize, deep: bool) -> Self {
        Self {
            num_virtual_tokens,
            deep,
            patch_size: patch_size(),
            prefix_tokens: prefix_tokens(),
        }
    }

    /// Sets the number of tokens before the prompts.
    pub fn with_prefix_tokens(mut self, prefix_tokens: usize) -> Self {
        self.prefix_tokens = prefix_tokens;
        self
    }

    /// Sets the side of a patch.
    pub fn with_patch_size(mut self, patch_size: usize) -> Self {
        self.patch_size = patch_size;
        self
    }
}

impl Recipe for VptConfig {
    fn sites(&self, places: &Places, targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        select::find_hooks(&places.hooks, targets, &["input"])
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        if self.num_virtual_tokens == 0 {
            return Err(AdapterError::bad_field(
                "num_virtual_tokens",
                "is 0; set it to 1 or more",
            ));
        }
        let prompted = if self.deep { sites.len() } else { sites.len().min(1) };
        Ok(own_groups(&sites[..prompted]))
    }

    fn params(&self, group: &Group) -> usize {
        self.num_virtual_tokens * group.sites[0].d_in
    }

    fn make(&self, groups: &[Group], _weights: &Weights, device: &Device) -> Result<Vec<Factors>, AdapterError> {
        let patch = 3 * self.patch_size * self.patch_size;
        let factors = groups.iter().enumerate().map(|(index, group)| {
            let d = group.sites[0].d_in;
            let bound = (6.0 / (patch + d) as f64).sqrt();
            let random = Distribution::Uniform(-bound, bound);
            Factors::Prompt(Prompt {
                tokens: Param::from_tensor(Tensor::random([self.num_virtual_tokens, d], random, device)),
                after: self.prefix_tokens,
                replaces: index > 0,
            })
        });
        Ok(factors.collect())
    }

    fn merges(&self) -> bool {
        false
    }
}

/// The prompt tokens of one block.
#[derive(Module, Debug)]
pub struct Prompt {
    /// `[prompts, d]`
    pub tokens: Param<Tensor<2>>,
    after: usize,
    replaces: bool,
}

impl Prompt {
    pub(crate) fn bind(&self) -> BoundPrompt {
        BoundPrompt {
            tokens: self.tokens.val(),
            after: self.after,
            replaces: self.replaces,
        }
    }
}

/// The prompt tokens as a bound hook sees them.
#[derive(Module, Debug)]
pub struct BoundPrompt {
    tokens: Tensor<2>,
    after: usize,
    replaces: bool,
}

impl BoundPrompt {
    /// Tokens that the place passes on beyond those it gets.
    pub(crate) fn added(&self) -> usize {
        if self.replaces { 0 } else { self.tokens.dims()[0] }
    }
}

impl Edit for BoundPrompt {
    fn activation(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, d] = x.dims();
        let [prompts, _] = self.tokens.dims();
        let own = cast(self.tokens.clone(), x.dtype())
            .unsqueeze::<3>()
            .expand([batch, prompts, d]);
        let rest = self.after + if self.replaces { prompts } else { 0 };
        let rest = x.clone().narrow(1, rest, tokens - rest);
        match self.after {
            0 => Tensor::cat(vec![own, rest], 1),
            after => Tensor::cat(vec![x.narrow(1, 0, after), own, rest], 1),
        }
    }
}
