//! BitFit (Bias-terms Fine-tuning, Ben Zaken et al. 2022, arXiv 2106.10199): the biases that a model has are
//! trained, nothing else. By default those of all linear layers, the setting of WeGeFT's vision experiments;
//! `layer_norm` adds those of the norms, as in the paper.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::vector::Vector;
use super::{Factors, Recipe};
use crate::bank::{Group, own_groups};
use crate::config::Targets;
use crate::error::AdapterError;
use crate::select;
use crate::site::{Places, Site};
use crate::weights::Weights;

/// Settings of BitFit. `target_modules` narrows it to some layers; without, all are trained.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BitfitConfig {
    /// Trains the biases of norms too.
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

impl Recipe for BitfitConfig {
    fn sites(&self, places: &Places, targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        select::find_vectors(&places.params, targets, |param| {
            let linear = param.holder == "Linear" && param.path.ends_with(".bias");
            linear || (self.layer_norm && param.path.ends_with(".beta"))
        })
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        Ok(own_groups(sites))
    }

    fn params(&self, group: &Group) -> usize {
        group.sites[0].d_out
    }

    fn make(&self, groups: &[Group], weights: &Weights, device: &Device) -> Result<Vec<Factors>, AdapterError> {
        Ok(Vector::copies(groups, weights, false, device))
    }
}
