//! Selection: which places of a model a config targets.

use std::collections::HashSet;

use crate::error::AdapterError;
use crate::fused::blocks;
use crate::nearest::nearest;
use crate::site::{
    ParamInfo, Places, Site, SiteKind, index_in, is_saved, kind, layer_index, list_before_number, name_matches,
};
use crate::targets::{Matcher, TargetModules, Targets};

impl Targets {
    /// The rank-2 weights that these targets name, in traversal order.
    ///
    /// # Errors
    /// No target at all, a pattern that matches nothing, or a match without a rank-2 weight.
    pub fn weights(&self, places: &Places) -> Result<Vec<Site>, AdapterError> {
        let params = places.params.iter();
        let weights: Vec<&ParamInfo> = params.filter(|param| !param.path.ends_with(".bias")).collect();
        if self.target_modules.is_empty() && self.target_parameters.is_empty() {
            let names = nearest(&weights, "proj");
            let message = format!("names no module; the model has, for example, {names}");
            return Err(AdapterError::bad_field("target_modules", message));
        }
        let mut sites = Vec::new();
        let chosen = match self.target_modules.is_empty() {
            true => Vec::new(),
            false => self.choose(&weights, places, SiteKind::of)?,
        };
        self.check_fused(chosen.iter().map(|(param, kind)| (*param, *kind)))?;
        for (param, kind) in chosen {
            let whole = Site::weight(param, kind);
            match self
                .fused
                .iter()
                .find(|fused| name_matches(param.name(), &fused.module))
            {
                Some(fused) => sites.extend(blocks(&whole, fused)?),
                None => sites.push(whole),
            }
        }
        sites.extend(self.parameters(places)?);
        let biases: HashSet<&str> = places
            .params
            .iter()
            .filter(|param| param.shape.len() == 1)
            .map(|param| param.path.as_str())
            .collect();
        for site in &mut sites {
            site.has_bias = biases.contains(site.bias_path().as_str());
            site.in_activation_space = places.calls_with_linear(&site.path);
        }
        match self.ensure_weight_tying {
            true => Ok(tied(sites, &places.params)),
            false => Ok(sites),
        }
    }

    /// The parameters that `target_parameters` names.
    fn parameters(&self, places: &Places) -> Result<Vec<Site>, AdapterError> {
        let candidates: Vec<&ParamInfo> = places.params.iter().collect();
        let named = |param: &ParamInfo, name: &str| name_matches(&param.path, name);
        for name in &self.target_parameters {
            if !candidates.iter().any(|param| named(param, name)) {
                return Err(AdapterError::NoMatch {
                    field: "target_parameters",
                    pattern: name.clone(),
                    nearest: nearest(&candidates, name),
                });
            }
        }
        let mut sites = Vec::new();
        for param in candidates {
            let Some(name) = self.target_parameters.iter().find(|name| named(param, name)) else {
                continue;
            };
            let kind = match param.shape.len() {
                2 => SiteKind::Matrix,
                3 => SiteKind::Experts,
                _ => return Err(not_a_matrix(param, name)),
            };
            sites.push(Site::weight(param, kind));
        }
        // PEFT wraps a module once for each of its parameters: the last one is stored under the module's own name, each
        // one before it a `base_layer` further in.
        let holder = |site: &Site| site.path.rsplit_once('.').map_or("", |(module, _)| module).to_string();
        for index in 0..sites.len() {
            let module = holder(&sites[index]);
            let after = sites[index + 1..].iter().filter(|site| holder(site) == module).count();
            sites[index].stored_as = Some(format!("{module}{}", ".base_layer".repeat(after)));
        }
        Ok(sites)
    }

    /// The vectors that `accepts` takes, in the modules that these targets name; in all modules if they name none.
    ///
    /// # Errors
    /// A pattern that matches no such vector.
    pub fn vectors(&self, places: &Places, accepts: impl Fn(&ParamInfo) -> bool) -> Result<Vec<Site>, AdapterError> {
        let params = places.params.iter();
        let vectors: Vec<&ParamInfo> = params
            .filter(|param| param.shape.len() == 1 && accepts(param))
            .collect();
        if vectors.is_empty() {
            return Err(AdapterError::NoPlace {
                what: "bias or norm that this method could train; use another method",
            });
        }
        let chosen = self.choose(&vectors, places, |_| Some(SiteKind::Vector))?.into_iter();
        Ok(chosen
            .map(|(param, _)| Site::vector(param.path.clone(), param.len()))
            .collect())
    }

    /// The hooks that these targets name, or those that `default` names if they name none.
    ///
    /// # Errors
    /// A model without hooks, or a pattern that matches none.
    pub fn hooks(&self, places: &Places, default: &[&str]) -> Result<Vec<Site>, AdapterError> {
        if places.hooks.is_empty() {
            return Err(AdapterError::NoPlace {
                what: "wegeft::Hook for this method to edit; add hooks to its blocks",
            });
        }
        let mut targets = self.clone();
        if targets.target_modules.is_empty() {
            let has = |name: &&&str| places.hooks.iter().any(|hook| name_matches(hook.module(), name));
            if let Some(name) = default.iter().find(|name| !has(name)) {
                let mut hooks: Vec<String> = places.hooks.iter().map(|hook| kind(hook.module())).collect();
                hooks.sort();
                hooks.dedup();
                return Err(AdapterError::NoHook {
                    name: name.to_string(),
                    hooks,
                });
            }
            targets.target_modules = TargetModules::Names(default.iter().map(ToString::to_string).collect());
        }
        let hooks: Vec<&ParamInfo> = places.hooks.iter().collect();
        let chosen = targets.choose(&hooks, places, |_| Some(SiteKind::Hook));
        let chosen = chosen.map_err(|error| match error {
            // Nobody gave the pattern.
            AdapterError::LeftOut { fields, .. } if self.target_modules.is_empty() => {
                AdapterError::AllLeftOut { fields }
            }
            error => error,
        })?;
        Ok(chosen
            .into_iter()
            .map(|(hook, _)| Site::hook(hook.module(), hook.len()))
            .collect())
    }

    /// The place for virtual tokens of that name: prompt methods have no targets.
    ///
    /// # Errors
    /// A model without such a place, or targets.
    pub fn token_hook(&self, places: &Places, name: &'static str) -> Result<Vec<Site>, AdapterError> {
        if !self.target_modules.is_empty() {
            let message = "must be unset: prompt methods have no target modules";
            return Err(AdapterError::bad_field("target_modules", message));
        }
        let mut hooks = places.token_hooks.iter();
        match hooks.find(|hook| name_matches(hook.module(), name)) {
            Some(hook) => Ok(vec![Site::tokens(hook.module(), hook.len())]),
            None => Err(AdapterError::NoTokenHook { name }),
        }
    }

    /// The candidates in the modules that these targets name, in order, with their kinds. Without names, all candidates that
    /// are not excluded.
    fn choose<'a>(
        &self,
        candidates: &[&'a ParamInfo],
        places: &Places,
        kind: fn(&ParamInfo) -> Option<SiteKind>,
    ) -> Result<Vec<(&'a ParamInfo, SiteKind)>, AdapterError> {
        self.check_left_out(candidates, places)?;
        let mut chosen = vec![None; candidates.len()];
        match &self.target_modules {
            TargetModules::Names(names) if names.is_empty() => {
                self.mark(candidates, None, kind, |_| Ok(true), places.for_file, &mut chosen)?;
            }
            TargetModules::Names(names) => {
                for name in names {
                    let matches = |param: &ParamInfo| Ok(name_matches(param.name(), name));
                    self.mark(candidates, Some(name), kind, matches, places.for_file, &mut chosen)?;
                }
            }
            TargetModules::Regex(pattern) => {
                let matcher = self.target_modules.matcher()?;
                self.mark(
                    candidates,
                    Some(pattern),
                    kind,
                    |param| matcher.matches_param(param),
                    places.for_file,
                    &mut chosen,
                )?;
            }
        }
        let pairs = candidates.iter().zip(chosen);
        Ok(pairs.filter_map(|(param, kind)| Some((*param, kind?))).collect())
    }

    /// Refuses `exclude_modules` and `layers_to_transform` that the model does not have. What is excluded may be of another
    /// kind than the candidates, such as a linear layer where norms are trained.
    fn check_left_out(&self, candidates: &[&ParamInfo], places: &Places) -> Result<(), AdapterError> {
        let all = || places.params.iter().chain(&places.hooks);
        let excluded = match &self.exclude_modules {
            TargetModules::Names(names) => &names[..],
            TargetModules::Regex(_) => &[],
        };
        for name in excluded {
            if !all().any(|param| name_matches(param.name(), name)) {
                return Err(AdapterError::NoMatch {
                    field: "exclude_modules",
                    pattern: name.clone(),
                    nearest: nearest(candidates, name),
                });
            }
        }
        if let TargetModules::Regex(pattern) = &self.exclude_modules {
            let excluded = self.exclude_modules.matcher()?;
            let mut matches = false;
            for param in all() {
                matches |= excluded.matches(param.name())?;
            }
            if !matches {
                return Err(AdapterError::NoMatch {
                    field: "exclude_modules",
                    pattern: pattern.clone(),
                    nearest: nearest(candidates, pattern),
                });
            }
        }
        let layers = self.layers_to_transform.as_deref().unwrap_or_default();
        if let Some(lists) = self.layers_pattern.as_ref().filter(|lists| !lists.is_empty())
            && !layers.is_empty()
            && candidates.iter().all(|param| self.layer(param).is_none())
        {
            let numbered = candidates.iter().find_map(|param| list_before_number(&param.path));
            let found = numbered.map_or("the model has no numbered modules".to_string(), |list| {
                format!("in this model numbers follow '{list}'")
            });
            let message = format!("no layer number follows {}; {found}", lists.join(" or "));
            return Err(AdapterError::bad_field("layers_pattern", message));
        }
        for layer in layers {
            if !candidates.iter().any(|param| self.layer(param) == Some(*layer)) {
                let last = candidates.iter().filter_map(|param| self.layer(param)).max();
                let message = match last {
                    Some(last) => format!("the model has no layer {layer}; its last layer is {last}"),
                    None => format!("names layer {layer}, but the model's modules are not numbered"),
                };
                return Err(AdapterError::bad_field("layers_to_transform", message));
            }
        }
        Ok(())
    }

    /// Marks the candidates that `matches` accepts and that no field excludes. There is no `pattern` if all are accepted.
    /// In PEFT a pattern names modules only: in a file (`for_file`) stacked parameters are left alone if it matches
    /// something else.
    fn mark(
        &self,
        candidates: &[&ParamInfo],
        pattern: Option<&str>,
        kind: fn(&ParamInfo) -> Option<SiteKind>,
        matches: impl Fn(&ParamInfo) -> Result<bool, AdapterError>,
        for_file: bool,
        chosen: &mut [Option<SiteKind>],
    ) -> Result<(), AdapterError> {
        let excluded = self.exclude_modules.matcher()?;
        let mut found = false;
        let mut stack = None;
        let mut fields: Vec<&'static str> = Vec::new();
        for (index, param) in candidates.iter().enumerate() {
            if !matches(param)? {
                continue;
            }
            let Some(kind) = kind(param) else {
                if for_file && param.is_stack() {
                    stack = stack.or(Some(param));
                    continue;
                }
                return Err(not_a_matrix(param, pattern.unwrap_or_default()));
            };
            match self.leaves_out(param, &excluded)? {
                Some(field) if !fields.contains(&field) => fields.push(field),
                Some(_) => {}
                None => chosen[index] = Some(kind),
            }
            found |= chosen[index].is_some();
        }
        if !found
            && fields.is_empty()
            && let (Some(param), Some(pattern)) = (stack, pattern)
        {
            return Err(not_a_matrix(param, pattern));
        }
        match pattern {
            _ if found => Ok(()),
            None => Err(AdapterError::AllLeftOut { fields }),
            Some(pattern) if fields.is_empty() => Err(AdapterError::NoMatch {
                field: "target_modules",
                pattern: pattern.to_string(),
                nearest: nearest(candidates, pattern),
            }),
            Some(pattern) => Err(AdapterError::LeftOut {
                pattern: pattern.to_string(),
                fields,
            }),
        }
    }

    /// Number of the layer that `param` lies in.
    fn layer(&self, param: &ParamInfo) -> Option<usize> {
        match &self.layers_pattern {
            Some(lists) if !lists.is_empty() => index_in(&param.path, lists),
            _ => layer_index(&param.path),
        }
    }

    /// The field that excludes a target.
    pub(crate) fn leaves_out(
        &self,
        param: &ParamInfo,
        excluded: &Matcher,
    ) -> Result<Option<&'static str>, AdapterError> {
        let layers = self.layers_to_transform.as_ref().filter(|layers| !layers.is_empty());
        let in_layer = |layers: &Vec<usize>| self.layer(param).is_some_and(|layer| layers.contains(&layer));
        Ok(if excluded.matches(param.name())? {
            Some("exclude_modules")
        } else if is_saved(&param.path, &self.modules_to_save) {
            Some("modules_to_save")
        } else if layers.is_some_and(|layers| !in_layer(layers)) {
            Some("layers_to_transform")
        } else {
            None
        })
    }

    /// True if these targets name `module`, a module's path: among `target_modules` and not among `exclude_modules`, among
    /// `modules_to_save`, or by a parameter of it among `target_parameters`.
    ///
    /// # Errors
    /// A pattern that is not a valid regular expression.
    pub fn names(&self, module: &str) -> Result<bool, AdapterError> {
        let weight = format!("{module}.weight");
        let targeted = self.target_modules.matcher()?.matches(module)?;
        Ok(is_saved(&weight, &self.modules_to_save)
            || (targeted && !self.exclude_modules.matcher()?.matches(module)?)
            || self.target_parameters.iter().any(|name| name_matches(&weight, name)))
    }
}

fn not_a_matrix(param: &ParamInfo, pattern: &str) -> AdapterError {
    AdapterError::NotAMatrix {
        pattern: pattern.to_string(),
        site: param.path.clone(),
        kind: param.holder.clone(),
        shape: param.shape.clone(),
    }
}

/// `sites` with all sites of one parameter joined: the first one stays, tied to the parameter's other places.
pub(crate) fn tied(sites: Vec<Site>, params: &[ParamInfo]) -> Vec<Site> {
    let id = |path: &str| params.iter().find(|param| param.path == path).map(|param| param.id);
    let mut kept: Vec<Site> = Vec::new();
    for mut site in sites {
        let own = id(&site.path);
        if kept
            .iter()
            .any(|other| other.block == site.block && id(&other.path) == own)
        {
            continue;
        }
        let elsewhere = params
            .iter()
            .filter(|param| Some(param.id) == own && param.path != site.path);
        site.tied = elsewhere.map(|param| param.path.clone()).collect();
        kept.push(site);
    }
    kept
}
