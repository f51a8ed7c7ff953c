//! Making an adapted model: a config and a model are checked against each other, then the model is frozen and the bank is
//! made.

use std::collections::HashMap;
use std::path::Path;

use burn::module::{Module, ModuleDisplay, ParamId};

use crate::adapted::{Adapted, trains};
use crate::bank::{self, Bank};
use crate::checkpoint::Tensors;
use crate::config::AdapterConfig;
use crate::error::AdapterError;
use crate::foreign;
use crate::misspelled;
use crate::patterns;
use crate::site::{self, ParamInfo, Places, Site};

impl AdapterConfig {
    /// Adapts `model`: freezes it and makes the bank on the model's device. Clones of `model` are not frozen.
    ///
    /// # Errors
    /// A target that matches nothing or cannot be adapted, an impossible rank, a group whose sites differ in a size that
    /// they must share, a `modules_to_save` that names no module, a quantized or tied weight that would be trained in
    /// full, a PEFT setting that is supported only in adapters that are loaded, a field that would have no effect, or a
    /// model that already carries an adapter.
    pub fn init<M: Module + ModuleDisplay>(&self, model: M) -> Result<Adapted<M>, AdapterError> {
        self.check_fresh()?;
        let places = site::places(&model);
        let adapted = self.adapt_at(model, &places)?;
        self.check_effect(&adapted)?;
        self.refuse_unmatched(&adapted)?;
        Ok(adapted)
    }

    /// Refuses a pattern of a rank or an alpha that matches nothing.
    pub(crate) fn refuse_unmatched<M: Module + ModuleDisplay>(&self, adapted: &Adapted<M>) -> Result<(), AdapterError> {
        match self.unmatched_patterns(adapted)?.first() {
            None => Ok(()),
            Some((field, key)) => {
                let message = format!("'{key}' matches none of the adapted modules");
                Err(AdapterError::bad_field(*field, message))
            }
        }
    }

    /// [`AdapterConfig::init`] for an adapter whose `tensors` are loaded next. Names are matched as PEFT matches those of a
    /// file, and sizes are checked against the tensors before any factor is allocated. `path` names the file in messages.
    pub(crate) fn init_to_load<M: Module + ModuleDisplay>(
        &self,
        model: M,
        tensors: &Tensors,
        path: &Path,
    ) -> Result<Adapted<M>, AdapterError> {
        let places = site::places_for_file(&model);
        refuse_adapted(&places)?;
        let (targets, mut warnings) = self.targets.of_file(&places)?;
        warnings.extend(misspelled::warnings(&self.extra, &self.fields()));
        let config = Self {
            targets,
            method: self.method.as_stored(tensors).unwrap_or_else(|| self.method.clone()),
            ..self.clone()
        };
        let sites = config.method.sites(&places, &config.targets)?;
        bank::check_taken(&*config.method, &sites)?;
        if !sites.is_empty() {
            let expected = Bank::expected(&*config.method, &config.method.groups(&sites)?);
            foreign::check_sizes(&expected, tensors, path)?;
        }
        let adapted = config.adapt_at(model, &places)?;
        let patterns = config.unmatched_patterns(&adapted)?.into_iter();
        warnings.extend(patterns.map(|(field, key)| format!("{field}: '{key}' matches none of the adapted modules")));
        Ok(adapted.with_warnings(warnings))
    }

    /// The names in the method's settings that match none of the adapted modules, by field.
    fn unmatched_patterns<M: Module + ModuleDisplay>(
        &self,
        adapted: &Adapted<M>,
    ) -> Result<Vec<(&'static str, String)>, AdapterError> {
        let sites = adapted.bank().groups().iter().flat_map(|group| &group.sites);
        let modules: Vec<String> = sites.map(Site::module).collect();
        patterns::unmatched(&self.method.settings(), &modules)
    }

    /// Adapts `model` with the targets of another adapter. That one may come from a file, so names are matched as in a file.
    pub(crate) fn adapt<M: Module + ModuleDisplay>(&self, model: M) -> Result<Adapted<M>, AdapterError> {
        let places = site::places_for_file(&model);
        self.adapt_at(model, &places)
    }

    fn adapt_at<M: Module + ModuleDisplay>(&self, model: M, places: &Places) -> Result<Adapted<M>, AdapterError> {
        refuse_adapted(places)?;
        let params = &places.params;
        for name in &self.targets.modules_to_save {
            if !params
                .iter()
                .any(|param| site::is_saved(&param.path, std::slice::from_ref(name)))
            {
                let heads: Vec<_> = params.iter().map(|param| site::kind(param.name())).collect();
                let message = format!(
                    "'{name}' names no module of the model; the last ones are: {}",
                    last(heads)
                );
                return Err(AdapterError::bad_field("modules_to_save", message));
            }
        }
        if let Some(param) = params.iter().find(|param| param.quantized && trains(self, param)) {
            return Err(AdapterError::Quantized {
                path: param.path.clone(),
            });
        }
        let mut first_of: HashMap<ParamId, &ParamInfo> = HashMap::new();
        for param in params {
            let first = *first_of.entry(param.id).or_insert(param);
            if first.path != param.path && (trains(self, param) || trains(self, first)) {
                return Err(AdapterError::Tied {
                    path: first.path.clone(),
                    other: param.path.clone(),
                });
            }
        }
        let bank = Bank::init(self, &model, places)?;
        let adapted = Adapted::new(model, bank, self.clone());
        let mut paths: HashMap<String, String> = HashMap::new();
        for (path, (_, key)) in adapted.names() {
            if let Some(first) = paths.insert(key.clone(), path.clone()) {
                return Err(AdapterError::SameKey {
                    key,
                    first,
                    second: path,
                });
            }
        }
        Ok(adapted)
    }
}

/// Refuses a model that carries an adapter: Burn keeps the one that a parameter has, so that another would never act there.
fn refuse_adapted(places: &Places) -> Result<(), AdapterError> {
    match places.reparameterized.first() {
        None => Ok(()),
        Some(path) => Err(AdapterError::AlreadyAdapted { path: path.clone() }),
    }
}

fn last(mut names: Vec<String>) -> String {
    names.dedup();
    let from = names.len().saturating_sub(4);
    names[from..].join(", ")
}
