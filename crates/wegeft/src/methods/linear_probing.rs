//! Linear probing: only `modules_to_save`, such as the head, is trained. It has no factors.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::edit::{Edit, Frozen};
use crate::error::AdapterError;
use crate::factors::Factors;
use crate::group::Group;
use crate::method::{self, Method};
use crate::site::{Places, Site};
use crate::targets::{TargetField, Targets};

/// Linear probing, which has no settings.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LinearProbingConfig {}

impl LinearProbingConfig {
    /// Linear probing.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Method for LinearProbingConfig {
    fn name(&self) -> &'static str {
        "LINEAR"
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
}

#[cfg(test)]
mod tests {
    use crate::AdapterConfig;
    use crate::methods::laws::Case;

    #[test]
    fn keeps_the_laws() {
        Case::new(AdapterConfig::linear_probing().with_modules_to_save(["head"])).check();
    }
}
