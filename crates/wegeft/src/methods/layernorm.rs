//! LayerNorm tuning (Zhao et al. 2023, arXiv 2312.11420; PEFT's LN_TUNING): only the scale and shift of norms are
//! trained, RMS norms included.

use std::sync::Arc;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::vector;
use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Spec};
use crate::group::Group;
use crate::method::{self, Method};
use crate::site::{Places, Site};
use crate::targets::{TargetField, Targets};
use crate::weights::Weights;

/// LayerNorm tuning, which has no settings. `target_modules` limits it to some norms; by default all are trained.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LayerNormConfig {}

impl LayerNormConfig {
    /// LayerNorm tuning.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Method for LayerNormConfig {
    fn name(&self) -> &'static str {
        "LN_TUNING"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn reads(&self) -> &'static [TargetField] {
        TargetField::OF_PLACES
    }

    fn sites(&self, places: &Places, targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        targets.vectors(places, |param| {
            let is_field = [".gamma", ".beta", ".weight", ".bias"]
                .iter()
                .any(|field| param.path.ends_with(field));
            is_field && param.holder.ends_with("Norm")
        })
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        vec![vector::spec(group, "ln_tuning_layers.")]
    }

    fn start(&self, group: &Group, weights: &Weights, device: &Device) -> Result<Factors, AdapterError> {
        Ok(vector::start(
            vector::spec(group, "ln_tuning_layers."),
            group,
            weights,
            device,
        ))
    }

    fn bind(&self, _group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        vector::bind(factors)
    }

    fn mixes(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use crate::AdapterConfig;
    use crate::methods::laws::Case;

    #[test]
    fn keeps_the_laws() {
        Case::new(AdapterConfig::layer_norm()).check();
    }
}
