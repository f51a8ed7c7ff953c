//! Selection: which places of a model a config targets.

use crate::error::AdapterError;
use crate::nearest::nearest;
use crate::site::{BlockOf, ParamInfo, Places, Site, is_saved, layer_index, name_matches};
use crate::targets::{Fused, TargetModules, Targets};

impl Targets {
    /// The rank-2 weights that these targets name, in traversal order.
    ///
    /// # Errors
    /// No target at all, a pattern that matches nothing, or a match without a rank-2 weight.
    pub fn weights(&self, places: &Places) -> Result<Vec<Site>, AdapterError> {
        let params = places.params.iter();
        let weights: Vec<&ParamInfo> = params.filter(|param| !param.path.ends_with(".bias")).collect();
        if self.target_modules.is_empty() {
            let names = nearest(&weights, "proj");
            let message = format!("names no module; some of the model's are: {names}");
            return Err(AdapterError::bad_field("target_modules", message));
        }
        let mut sites = Vec::new();
        for param in self.choose(&weights, 2)? {
            let whole = Site {
                path: param.path.clone(),
                d_in: param.shape[0],
                d_out: param.shape[1],
                block: None,
            };
            let fused = self.fused.iter();
            match fused.clone().find(|fused| name_matches(param.name(), &fused.module)) {
                Some(fused) => sites.extend(blocks(&whole, fused)?),
                None => sites.push(whole),
            }
        }
        let is_site = |fused: &Fused| {
            let mut adapted = sites.iter().filter_map(|site| site.path.strip_suffix(".weight"));
            adapted.any(|module| name_matches(module, &fused.module))
        };
        match self.fused.iter().find(|fused| !is_site(fused)) {
            None => Ok(sites),
            Some(fused) => {
                let message = format!("'{}' is none of the target_modules; add it there too", fused.module);
                Err(AdapterError::bad_field("fused", message))
            }
        }
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
                what: "vector of the kind that this method trains",
            });
        }
        let chosen = self.choose(&vectors, 1)?.into_iter();
        Ok(chosen
            .map(|param| Site::vector(param.path.clone(), param.len()))
            .collect())
    }

    /// The hooks that these targets name, or those that `default` names if they name none.
    ///
    /// # Errors
    /// A model without hooks, or a pattern that matches none.
    pub fn hooks(&self, places: &Places, default: &[&str]) -> Result<Vec<Site>, AdapterError> {
        if places.hooks.is_empty() {
            return Err(AdapterError::NoPlace {
                what: "wegeft::Hook, which this method edits; give its blocks some",
            });
        }
        let mut targets = self.clone();
        if targets.target_modules.is_empty() {
            targets.target_modules = TargetModules::Names(default.iter().map(ToString::to_string).collect());
        }
        let hooks: Vec<&ParamInfo> = places.hooks.iter().collect();
        let chosen = targets.choose(&hooks, 1)?.into_iter();
        Ok(chosen.map(|hook| Site::hook(hook.module(), hook.len())).collect())
    }

    /// The candidates in the modules that these targets name, in their order; all that are not left out if they name none.
    fn choose<'a>(&self, candidates: &[&'a ParamInfo], rank: usize) -> Result<Vec<&'a ParamInfo>, AdapterError> {
        self.check_left_out(candidates)?;
        let mut chosen = vec![false; candidates.len()];
        match &self.target_modules {
            TargetModules::Names(names) if names.is_empty() => {
                self.mark(candidates, "all modules", rank, |_| true, &mut chosen)?;
            }
            TargetModules::Names(names) => {
                for name in names {
                    self.mark(candidates, name, rank, |module| name_matches(module, name), &mut chosen)?;
                }
            }
            TargetModules::Regex(pattern) => {
                let matcher = self.target_modules.matcher()?;
                self.mark(candidates, pattern, rank, |module| matcher.matches(module), &mut chosen)?;
            }
        }
        let pairs = candidates.iter().zip(chosen).filter(|(_, chosen)| *chosen);
        Ok(pairs.map(|(param, _)| *param).collect())
    }

    /// Refuses modules and layers to leave out, or to keep to, that the model does not have.
    fn check_left_out(&self, candidates: &[&ParamInfo]) -> Result<(), AdapterError> {
        for name in &self.exclude_modules {
            if !candidates.iter().any(|param| name_matches(param.name(), name)) {
                return Err(AdapterError::NoMatch {
                    field: "exclude_modules",
                    pattern: name.clone(),
                    nearest: nearest(candidates, name),
                });
            }
        }
        for layer in self.layers_to_transform.iter().flatten() {
            if !candidates.iter().any(|param| layer_index(&param.path) == Some(*layer)) {
                let last = candidates.iter().filter_map(|param| layer_index(&param.path)).max();
                let message = match last {
                    Some(last) => format!("the model has no layer {layer}; its last one is {last}"),
                    None => format!("names layer {layer}, and the model's modules have no numbers"),
                };
                return Err(AdapterError::bad_field("layers_to_transform", message));
            }
        }
        Ok(())
    }

    /// Marks the candidates that `matches` names and that nothing leaves out.
    fn mark(
        &self,
        candidates: &[&ParamInfo],
        pattern: &str,
        rank: usize,
        matches: impl Fn(&str) -> bool,
        chosen: &mut [bool],
    ) -> Result<(), AdapterError> {
        let mut found = false;
        let mut left_out = None;
        for (index, param) in candidates.iter().enumerate() {
            if !matches(param.name()) {
                continue;
            }
            if param.shape.len() != rank {
                return Err(AdapterError::NotAMatrix {
                    pattern: pattern.to_string(),
                    site: param.path.clone(),
                    kind: param.holder.clone(),
                    shape: param.shape.clone(),
                });
            }
            match self.leaves_out(param) {
                Some(field) => left_out = Some(field),
                None => chosen[index] = true,
            }
            found |= chosen[index];
        }
        match (found, left_out) {
            (true, _) => Ok(()),
            (false, Some(field)) => Err(AdapterError::LeftOut {
                pattern: pattern.to_string(),
                field,
            }),
            (false, None) => Err(AdapterError::NoMatch {
                field: "target_modules",
                pattern: pattern.to_string(),
                nearest: nearest(candidates, pattern),
            }),
        }
    }

    /// The field that leaves a target out.
    fn leaves_out(&self, param: &ParamInfo) -> Option<&'static str> {
        let in_layer = |layers: &Vec<usize>| layer_index(&param.path).is_some_and(|layer| layers.contains(&layer));
        if self.exclude_modules.iter().any(|name| name_matches(param.name(), name)) {
            Some("exclude_modules")
        } else if is_saved(&param.path, &self.modules_to_save) {
            Some("modules_to_save")
        } else if self
            .layers_to_transform
            .as_ref()
            .is_some_and(|layers| !in_layer(layers))
        {
            Some("layers_to_transform")
        } else {
            None
        }
    }
}

/// The adapted blocks of a fused weight, each a site.
fn blocks(whole: &Site, fused: &Fused) -> Result<Vec<Site>, AdapterError> {
    let bad = |message: String| Err(AdapterError::bad_field("fused", format!("'{}': {message}", whole.path)));
    let count = fused.blocks.len();
    let widths = match fused.widths.is_empty() {
        true if count == 0 || !whole.d_out.is_multiple_of(count) => {
            return bad(format!(
                "{count} equal blocks do not divide its {} columns; set widths",
                whole.d_out
            ));
        }
        true => vec![whole.d_out / count; count],
        false => fused.widths.clone(),
    };
    let sum = widths.iter().try_fold(0usize, |sum, width| sum.checked_add(*width));
    if widths.len() != count || sum != Some(whole.d_out) {
        return bad(format!(
            "widths {widths:?} are not {count} that add up to its {} columns",
            whole.d_out
        ));
    }
    if let Some(unknown) = fused.adapt.iter().find(|name| !fused.blocks.contains(name)) {
        return bad(format!(
            "it has no block '{unknown}'; choose among {}",
            fused.blocks.join(", ")
        ));
    }
    let mut start = 0;
    let mut sites = Vec::new();
    for (name, width) in fused.blocks.iter().zip(widths) {
        if fused.adapt.contains(name) {
            sites.push(Site {
                d_out: width,
                block: Some(BlockOf {
                    name: name.clone(),
                    start,
                    whole: whole.d_out,
                }),
                ..whole.clone()
            });
        }
        start += width;
    }
    Ok(sites)
}
