//! Prefix tuning (Li and Liang 2021, arXiv 2101.00190): trained keys and values of virtual tokens in front of those of every
//! layer of a language model. On disk as in PEFT: one tensor, `prompt_embeddings`, of
//! `[tokens, layers · 2 · kv_heads · head_dim]`, the keys of a layer before its values. They are trained as they are stored;
//! PEFT's `prefix_projection`, an MLP that produces them in training, is not implemented. PEFT stores its result, so such
//! adapters can be loaded.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::virtual_tokens::{self, BoundTokens};
use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Init, Spec};
use crate::group::Group;
use crate::json::null_as_default;
use crate::method::{self, Method};
use crate::site::{Places, Site};
use crate::targets::{TargetField, Targets};

/// Initialization of the keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrefixInit {
    /// All zeros.
    Zero,
}

/// Settings of prefix tuning; names as in PEFT. It acts on the model's [`TokenHook`](crate::TokenHook) named `prefix`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrefixTuningConfig {
    /// Number of virtual tokens.
    pub num_virtual_tokens: usize,
    /// How their keys and values are initialized; standard normal if absent, as in PEFT.
    #[serde(default)]
    pub init_weights: Option<PrefixInit>,
    /// True in the file of an adapter that PEFT trained with a projection.
    #[serde(default, deserialize_with = "null_as_default")]
    pub prefix_projection: bool,
}

impl PrefixTuningConfig {
    /// The given number of virtual tokens, initialized at random.
    pub fn new(num_virtual_tokens: usize) -> Self {
        Self {
            num_virtual_tokens,
            init_weights: None,
            prefix_projection: false,
        }
    }

    /// Sets how keys and values are initialized.
    pub fn with_init_weights(mut self, init: Option<PrefixInit>) -> Self {
        self.init_weights = init;
        self
    }
}

impl Method for PrefixTuningConfig {
    fn name(&self) -> &'static str {
        "PREFIX_TUNING"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn check_fresh(&self) -> Result<(), AdapterError> {
        match self.prefix_projection {
            false => Ok(()),
            true => Err(AdapterError::bad_field(
                "prefix_projection",
                "training with a projection is not implemented; set it to false",
            )),
        }
    }

    fn reads(&self) -> &'static [TargetField] {
        &[]
    }

    fn sites(&self, places: &Places, targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        targets.token_hook(places, "prefix")
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        virtual_tokens::groups(sites, self.num_virtual_tokens)
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        let init = match self.init_weights {
            None => Init::Normal(1.0),
            Some(PrefixInit::Zero) => Init::Zeros,
        };
        vec![virtual_tokens::spec(group, self.num_virtual_tokens).with_init(init)]
    }

    fn bind(&self, _group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        Arc::new(BoundTokens::of(factors))
    }

    fn merges(&self) -> bool {
        false
    }

    fn mixes(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AdapterConfig;
    use crate::methods::laws::Case;

    #[test]
    fn keeps_the_laws() {
        let random = PrefixTuningConfig::new(2);
        for config in [random.clone(), random.with_init_weights(Some(PrefixInit::Zero))] {
            Case::new(AdapterConfig::new(config)).starting_elsewhere().check();
        }
    }
}
