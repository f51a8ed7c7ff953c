//! VPT (Visual Prompt Tuning, Jia et al. 2022, arXiv 2203.12119): trained tokens after the CLS token, added at the first
//! block only (shallow), or at every block, where they replace those of the block before (deep).
//!
//! They start from U(±√(6 / (3·patch² + d))), the authors' Xavier-uniform over a patch and a token. WeGeFT's vision
//! experiments use 5 tokens, deep. There is no dropout on them. A backbone that pools over patch tokens excludes the
//! prompts.

use std::sync::Arc;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Init, Spec};
use crate::group::Group;
use crate::method::{self, Method};
use crate::site::{Places, Site};
use crate::targets::{TargetField, Targets};
use crate::tensor::cast;

/// Settings of VPT. `target_modules` names hooks; by default the `input` of every block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VptConfig {
    /// Number of prompt tokens (PEFT's name in its prompt methods).
    pub num_virtual_tokens: usize,
    /// Whether every block has its own prompt tokens.
    pub deep: bool,
    /// Side of a patch in pixels, used for initialization only.
    #[serde(default = "patch_size")]
    pub patch_size: usize,
    /// Tokens before the prompts: 1 for a CLS token, 0 for a backbone without.
    #[serde(default = "prefix_tokens")]
    pub prefix_tokens: usize,
}

fn patch_size() -> usize {
    16
}

/// Tokens before the prompts at most: far more than any model has.
const MOST_PREFIX: usize = 1 << 16;

fn prefix_tokens() -> usize {
    1
}

impl VptConfig {
    /// The given number of prompt tokens after a CLS token, for patches of 16 pixels.
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

impl Method for VptConfig {
    fn name(&self) -> &'static str {
        "VPT"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn reads(&self) -> &'static [TargetField] {
        TargetField::OF_PLACES
    }

    fn sites(&self, places: &Places, targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        targets.hooks(places, &["input"])
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        if self.num_virtual_tokens == 0 {
            return Err(AdapterError::bad_field(
                "num_virtual_tokens",
                "is 0; set it to 1 or more",
            ));
        }
        if self.prefix_tokens > MOST_PREFIX {
            return Err(AdapterError::bad_field(
                "prefix_tokens",
                format!("is {}; expected at most {MOST_PREFIX}", self.prefix_tokens),
            ));
        }
        let prompted = if self.deep { sites.len() } else { sites.len().min(1) };
        Ok(Group::each(&sites[..prompted]))
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        let d = group.site().d_in;
        let patch = 3.0 * (self.patch_size as f64).powi(2);
        let tokens = Spec::new("tokens", "prompt_embeddings", [self.num_virtual_tokens, d]);
        vec![tokens.with_init(Init::Uniform((6.0 / (patch + d as f64)).sqrt()))]
    }

    fn bind(&self, group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        Arc::new(BoundPrompt {
            tokens: factors.matrix("tokens"),
            after: self.prefix_tokens,
            replaces: group.index > 0,
        })
    }

    fn merges(&self) -> bool {
        false
    }
}

/// The edit of a bound hook.
#[derive(Debug)]
struct BoundPrompt {
    /// `[prompts, d]`
    tokens: Tensor<2>,
    after: usize,
    replaces: bool,
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

    fn added_tokens(&self) -> usize {
        if self.replaces { 0 } else { self.tokens.dims()[0] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AdapterConfig;
    use crate::methods::laws::Case;

    #[test]
    fn keeps_the_laws() {
        for config in [
            VptConfig::new(2, false),
            VptConfig::new(2, true),
            VptConfig::new(1, true).with_prefix_tokens(2).with_patch_size(8),
        ] {
            Case::new(AdapterConfig::new(config)).starting_elsewhere().check();
        }
    }
}
