//! Prompt tuning (Lester et al. 2021, arXiv 2104.08691): trained virtual tokens in front of a language model's input
//! embeddings. On disk as in PEFT: one tensor, `prompt_embeddings`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::virtual_tokens::{self, BoundTokens};
use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Init, Spec};
use crate::group::Group;
use crate::method::{self, Method};
use crate::site::{Places, Site};
use crate::targets::{TargetField, Targets};

/// Initialization of the virtual tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PromptInit {
    /// Standard normal, as in PEFT.
    #[default]
    Random,
    /// Random rows of the embedding. Supported only in adapters that are loaded.
    SampleVocab,
    /// The embeddings of a text. Supported only in adapters that are loaded.
    Text,
}

/// Settings of prompt tuning; names as in PEFT. It acts on the model's [`TokenHook`](crate::TokenHook) named `prompt`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptTuningConfig {
    /// Number of virtual tokens.
    pub num_virtual_tokens: usize,
    /// How they are initialized.
    #[serde(default)]
    pub prompt_tuning_init: PromptInit,
}

impl PromptTuningConfig {
    /// The given number of virtual tokens, initialized at random.
    pub fn new(num_virtual_tokens: usize) -> Self {
        Self {
            num_virtual_tokens,
            prompt_tuning_init: PromptInit::default(),
        }
    }
}

impl Method for PromptTuningConfig {
    fn name(&self) -> &'static str {
        "PROMPT_TUNING"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn check_fresh(&self) -> Result<(), AdapterError> {
        match self.prompt_tuning_init {
            PromptInit::Random => Ok(()),
            _ => Err(AdapterError::bad_field(
                "prompt_tuning_init",
                "SAMPLE_VOCAB and TEXT are supported only in adapters that are loaded; set RANDOM",
            )),
        }
    }

    fn reads(&self) -> &'static [TargetField] {
        &[]
    }

    fn sites(&self, places: &Places, targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        targets.token_hook(places, "prompt")
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        virtual_tokens::groups(sites, self.num_virtual_tokens)
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        vec![virtual_tokens::spec(group, self.num_virtual_tokens).with_init(Init::Normal(1.0))]
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
        Case::new(AdapterConfig::new(PromptTuningConfig::new(2)))
            .starting_elsewhere()
            .check();
    }
}
