//! BitFit (Bias-terms Fine-tuning, Ben Zaken et al. 2022, arXiv 2106.10199): only the biases of a model are trained. By
//! default the biases of all linear layers, as in WeGeFT's vision experiments; `layer_norm` adds those of norms, as in the
//! paper.

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

/// Settings of BitFit. `target_modules` limits it to some layers; by default all are trained.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BitfitConfig {
    /// Whether the biases of norms are trained as well.
    #[serde(default)]
    pub layer_norm: bool,
}

impl BitfitConfig {
    /// The biases of linear layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether the biases of norms are trained too.
    pub fn with_layer_norm(mut self, layer_norm: bool) -> Self {
        self.layer_norm = layer_norm;
        self
    }
}

impl Method for BitfitConfig {
    fn name(&self) -> &'static str {
        "BITFIT"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn reads(&self) -> &'static [TargetField] {
        TargetField::OF_PLACES
    }

    fn sites(&self, places: &Places, targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        targets.vectors(places, |param| {
            let linear = param.holder == "Linear" && param.path.ends_with(".bias");
            linear || (self.layer_norm && param.path.ends_with(".beta"))
        })
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        vec![vector::spec(group, "")]
    }

    fn start(&self, group: &Group, weights: &Weights, device: &Device) -> Result<Factors, AdapterError> {
        Ok(vector::start(vector::spec(group, ""), group, weights, device))
    }

    fn bind(&self, _group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        vector::bind(factors)
    }

    fn mixes(&self) -> bool {
        !self.layer_norm
    }
}

#[cfg(test)]
mod tests {
    use super::BitfitConfig;
    use crate::AdapterConfig;
    use crate::methods::laws::Case;

    #[test]
    fn keeps_the_laws() {
        Case::new(AdapterConfig::bitfit().with_modules_to_save(["head"])).check();
        let norms = AdapterConfig::new(BitfitConfig::new().with_layer_norm(true));
        Case::new(norms.with_target_modules(["norm", "proj"])).check();
    }
}
