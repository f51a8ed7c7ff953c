//! Refuses what a fresh adapter would ignore. An adapter that is loaded may have it, as PEFT's files do.

use burn::module::{Module, ModuleDisplay};
use serde_json::Value;

use crate::adapted::Adapted;
use crate::config::AdapterConfig;
use crate::error::AdapterError;
use crate::group::Group;
use crate::method;
use crate::site;
use crate::targets::TargetField;
use crate::unsupported;

impl AdapterConfig {
    /// Refuses fields that have no effect on a fresh adapter, whatever the model is.
    ///
    /// # Errors
    /// Such a field.
    pub(crate) fn check_fresh(&self) -> Result<(), AdapterError> {
        unsupported::check_fresh(&self.extra)?;
        method::check_settings(&*self.method)?;
        self.method.check_fresh()?;
        let (read, set) = (self.method.reads(), self.targets.set());
        if let Some(field) = set.iter().find(|field| !read.contains(field)) {
            let message = format!("has no effect on {}; leave it unset", self.method.name());
            return Err(AdapterError::bad_field(field.name(), message));
        }
        let limits = [TargetField::ExcludeModules, TargetField::LayersToTransform];
        if let Some(field) = limits.into_iter().find(|field| set.contains(field))
            && set.contains(&TargetField::TargetParameters)
            && !set.contains(&TargetField::TargetModules)
        {
            let message =
                "has no effect on target_parameters; leave it unset, and name the parameters that are meant there";
            return Err(AdapterError::bad_field(field.name(), message));
        }
        let lists = self.targets.layers_pattern.as_ref();
        if lists.is_some_and(|lists| !lists.is_empty()) && !set.contains(&TargetField::LayersToTransform) {
            let message = "has no effect without layers_to_transform; set that too, or leave it unset";
            return Err(AdapterError::bad_field("layers_pattern", message));
        }
        Ok(())
    }

    /// Refuses what has no effect on this model: an edit of what is trained in full, a scale of 0, or nothing to train at
    /// all.
    ///
    /// # Errors
    /// The parameter, or the method.
    pub(crate) fn check_effect<M: Module + ModuleDisplay>(&self, adapted: &Adapted<M>) -> Result<(), AdapterError> {
        let full = adapted.saved_params();
        let mut sites = adapted.bank().groups().iter().flat_map(|group| &group.sites);
        if let Some(twice) = sites.find(|site| full.iter().any(|param| param.path == site.path)) {
            return Err(AdapterError::TrainedTwice {
                path: twice.path.clone(),
                field: match site::is_saved(&twice.path, &self.targets.modules_to_save) {
                    true => "modules_to_save".to_string(),
                    false => self.method.name().to_string(),
                },
            });
        }
        if let Some(module) = adapted.bank().groups().iter().find_map(unscaled) {
            let message =
                format!("gives '{module}' the scale 0, with which its factors learn nothing; set it to another number");
            return Err(AdapterError::bad_field(self.alpha_field(), message));
        }
        match full.is_empty() && adapted.bank().factors.is_empty() {
            true => Err(AdapterError::NothingTrained {
                method: self.method.name().to_string(),
            }),
            false => Ok(()),
        }
    }

    /// The field that gives a site the scale 0: the alpha of all sites, if that is 0, or else that of some.
    fn alpha_field(&self) -> &'static str {
        let settings = self.method.settings();
        let is_zero = |name: &&str| settings.get(*name).and_then(Value::as_f64) == Some(0.0);
        ["lora_alpha", "alpha"]
            .into_iter()
            .find(is_zero)
            .unwrap_or("alpha_pattern")
    }
}

/// The first module of a group whose edit is multiplied by 0.
fn unscaled(group: &Group) -> Option<String> {
    if group.scale == 0.0 {
        return Some(group.module());
    }
    let mut scales = group.sites.iter().zip(&group.scales);
    let (site, _) = scales.find(|(_, scale)| **scale == 0.0)?;
    Some(site.module())
}
