//! Full fine-tuning: every parameter of the model is trained. It has no factors.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::edit::{Edit, Frozen};
use crate::error::AdapterError;
use crate::factors::Factors;
use crate::group::Group;
use crate::method::{self, Method};
use crate::site::{ParamInfo, Places, Site};
use crate::targets::{TargetField, Targets};

/// Full fine-tuning, which has no settings.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FullConfig {}

impl FullConfig {
    /// Full fine-tuning.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Method for FullConfig {
    fn name(&self) -> &'static str {
        "FULL"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn reads(&self) -> &'static [TargetField] {
        &[]
    }

    fn sites(&self, _places: &Places, _targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        Ok(Vec::new())
    }

    fn bind(&self, _group: &Group, _factors: &Factors) -> Arc<dyn Edit> {
        Arc::new(Frozen)
    }

    fn trains(&self, _param: &ParamInfo) -> bool {
        true
    }

    /// All parameters of the sites.
    fn params_of(&self, sites: &[Site]) -> Result<usize, AdapterError> {
        Ok(sites.iter().map(|site| site.d_in * site.d_out).sum())
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
        Case::new(AdapterConfig::full()).check();
    }
}
