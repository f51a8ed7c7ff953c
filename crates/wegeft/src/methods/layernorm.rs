//! LayerNorm tuning (Zhao et al. 2023, arXiv 2312.11420; PEFT's LN_TUNING): scale and shift of the norms are trained,
//! nothing else.

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

/// LayerNorm tuning; it has no setting. `target_modules` narrows it to some norms; without, all are trained.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LayerNormConfig {}

impl LayerNormConfig {
    /// The only one.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Recipe for LayerNormConfig {
    fn sites(&self, places: &Places, targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        select::find_vectors(&places.params, targets, |param| {
            param.path.ends_with(".gamma") || param.path.ends_with(".beta")
        })
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        Ok(own_groups(sites))
    }

    fn params(&self, group: &Group) -> usize {
        group.sites[0].d_out
    }

    fn make(&self, groups: &[Group], weights: &Weights, device: &Device) -> Result<Vec<Factors>, AdapterError> {
        Ok(Vector::copies(groups, weights, true, device))
    }
}
