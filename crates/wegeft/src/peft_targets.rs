//! Targets of an adapter's file, read as PEFT reads them: names that match nothing do not refuse it.

use crate::error::AdapterError;
use crate::site::{Places, is_saved, name_matches};
use crate::targets::{TargetModules, Targets};

impl Targets {
    /// These targets as PEFT reads them from a file: names that match nothing, or only excluded modules, are ignored as
    /// long as another name matches. Also returns a sentence for each name that is ignored.
    ///
    /// # Errors
    /// A pattern that is not a valid regular expression.
    pub(crate) fn of_file(&self, places: &Places) -> Result<(Self, Vec<String>), AdapterError> {
        let params = || places.params.iter().chain(&places.hooks);
        let mut own = self.clone();
        let mut warnings = Vec::new();
        let mut keep = |field: &str, names: &mut Vec<String>, matches: &dyn Fn(&str) -> bool| {
            names.retain(|name| {
                let matches = matches(name);
                if !matches {
                    warnings.push(format!(
                        "{field}: '{name}' matches nothing that is adapted in this model and is ignored"
                    ));
                }
                matches
            });
        };
        let saves = |name: &str| params().any(|param| is_saved(&param.path, &[name.to_string()]));
        keep("modules_to_save", &mut own.modules_to_save, &saves);
        match &mut own.exclude_modules {
            TargetModules::Names(names) => keep("exclude_modules", names, &|name| {
                params().any(|param| name_matches(param.name(), name))
            }),
            TargetModules::Regex(pattern) => {
                let excluded = self.exclude_modules.matcher()?;
                let mut matches = false;
                for param in params() {
                    matches |= excluded.matches(param.name())?;
                }
                let mut pattern = vec![std::mem::take(pattern)];
                keep("exclude_modules", &mut pattern, &|_| matches);
                own.exclude_modules = pattern.pop().map_or_else(TargetModules::default, TargetModules::Regex);
            }
        }
        if let TargetModules::Names(names) = &self.target_modules {
            let excluded = own.exclude_modules.matcher()?;
            let mut adapted = Vec::new();
            for param in params().filter(|param| !param.is_stack()) {
                if own.leaves_out(param, &excluded)?.is_none() {
                    adapted.push(param.name());
                }
            }
            let matches = |name: &str| adapted.iter().any(|module| name_matches(module, name));
            // Of names that match nothing at all, the first is refused by name.
            if names.iter().any(|name| matches(name)) {
                let mut matching = names.clone();
                keep("target_modules", &mut matching, &matches);
                own.target_modules = TargetModules::Names(matching);
            }
        }
        if !own.target_modules.is_empty() {
            keep("target_parameters", &mut own.target_parameters, &|name| {
                params().any(|param| name_matches(&param.path, name))
            });
        }
        Ok((own, warnings))
    }
}
