//! Selection: which places of a model a config targets.

use crate::error::AdapterError;
use crate::site::{BlockOf, ParamInfo, Places, Site, is_saved, kind, layer_index, name_matches, regex};
use crate::targets::{Fused, TargetModules, Targets};

impl Targets {
    /// The rank-2 weights that these targets name, in traversal order.
    ///
    /// # Errors
    /// No target at all, a pattern that matches nothing, or a match without a rank-2 weight.
    pub fn weights(&self, places: &Places) -> Result<Vec<Site>, AdapterError> {
        weights(&places.params, self)
    }

    /// The vectors that `accepts` takes, in the modules that these targets name; in all modules if they name none.
    ///
    /// # Errors
    /// A pattern that matches no such vector.
    pub fn vectors(&self, places: &Places, accepts: impl Fn(&ParamInfo) -> bool) -> Result<Vec<Site>, AdapterError> {
        vectors(&places.params, self, accepts)
    }

    /// The hooks that these targets name, or those that `default` names if they name none.
    ///
    /// # Errors
    /// A pattern that matches no hook.
    pub fn hooks(&self, places: &Places, default: &[&str]) -> Result<Vec<Site>, AdapterError> {
        hooks(&places.hooks, self, default)
    }
}

fn weights(params: &[ParamInfo], targets: &Targets) -> Result<Vec<Site>, AdapterError> {
    let weights: Vec<&ParamInfo> = params.iter().filter(|param| !param.path.ends_with(".bias")).collect();
    if targets.target_modules.is_empty() {
        let names = nearest(&weights, "proj");
        let message = format!("names no module; some of the model's are: {names}");
        return Err(AdapterError::bad_field("target_modules", message));
    }
    let mut sites = Vec::new();
    for param in choose(&weights, targets, 2)? {
        let whole = Site {
            path: param.path.clone(),
            d_in: param.shape[0],
            d_out: param.shape[1],
            block: None,
        };
        match targets
            .fused
            .iter()
            .find(|fused| name_matches(param.module(), &fused.module))
        {
            Some(fused) => sites.extend(blocks(&whole, fused)?),
            None => sites.push(whole),
        }
    }
    Ok(sites)
}

fn vectors(
    params: &[ParamInfo],
    targets: &Targets,
    accepts: impl Fn(&ParamInfo) -> bool,
) -> Result<Vec<Site>, AdapterError> {
    let vectors: Vec<&ParamInfo> = params
        .iter()
        .filter(|param| param.shape.len() == 1 && accepts(param))
        .collect();
    let chosen = choose(&vectors, targets, 1)?.into_iter();
    Ok(chosen
        .map(|param| Site::vector(param.path.clone(), param.len()))
        .collect())
}

fn hooks(hooks: &[ParamInfo], targets: &Targets, default: &[&str]) -> Result<Vec<Site>, AdapterError> {
    let mut targets = targets.clone();
    if targets.target_modules.is_empty() {
        targets.target_modules = TargetModules::Names(default.iter().map(ToString::to_string).collect());
    }
    let hooks: Vec<&ParamInfo> = hooks.iter().collect();
    let chosen = choose(&hooks, &targets, 1)?.into_iter();
    Ok(chosen.map(|hook| Site::hook(hook.module(), hook.len())).collect())
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

/// The candidates in the modules that `targets` names, in their order; all that are not left out if it names none.
fn choose<'a>(
    candidates: &[&'a ParamInfo],
    targets: &Targets,
    rank: usize,
) -> Result<Vec<&'a ParamInfo>, AdapterError> {
    let mut chosen = vec![false; candidates.len()];
    match &targets.target_modules {
        TargetModules::Names(names) if names.is_empty() => {
            select(candidates, targets, "all modules", rank, |_| true, &mut chosen)?;
        }
        TargetModules::Names(names) => {
            for name in names {
                let matches = |module: &str| name_matches(module, name);
                select(candidates, targets, name, rank, matches, &mut chosen)?;
            }
        }
        TargetModules::Regex(pattern) => {
            let matcher = regex(pattern)?;
            let matches = |module: &str| matcher.is_match(module);
            select(candidates, targets, pattern, rank, matches, &mut chosen)?;
        }
    }
    let pairs = candidates.iter().zip(chosen).filter(|(_, chosen)| *chosen);
    Ok(pairs.map(|(param, _)| *param).collect())
}

fn select(
    candidates: &[&ParamInfo],
    targets: &Targets,
    pattern: &str,
    rank: usize,
    matches: impl Fn(&str) -> bool,
    chosen: &mut [bool],
) -> Result<(), AdapterError> {
    let mut found = false;
    for (index, param) in candidates.iter().enumerate() {
        let module = param.module();
        if !matches(module) {
            continue;
        }
        if param.shape.len() != rank {
            return Err(AdapterError::NotAMatrix {
                pattern: pattern.to_string(),
                site: param.path.clone(),
                shape: param.shape.clone(),
            });
        }
        let excluded = targets.exclude_modules.iter().any(|name| name_matches(module, name))
            || is_saved(&param.path, &targets.modules_to_save);
        let layer_chosen = targets
            .layers_to_transform
            .as_ref()
            .is_none_or(|layers| layer_index(&param.path).is_some_and(|layer| layers.contains(&layer)));
        chosen[index] |= !excluded && layer_chosen;
        found |= chosen[index];
    }
    match found {
        true => Ok(()),
        false => Err(AdapterError::NoMatch {
            pattern: pattern.to_string(),
            nearest: nearest(candidates, pattern),
        }),
    }
}

/// The three module names most like `pattern`, each with its layer number left out.
fn nearest(candidates: &[&ParamInfo], pattern: &str) -> String {
    let mut names: Vec<String> = candidates.iter().map(|param| kind(param.module())).collect();
    names.sort();
    names.dedup();
    let tail = |name: &str| {
        name.rsplit('*')
            .next()
            .unwrap_or(name)
            .trim_start_matches('.')
            .to_string()
    };
    names.sort_by(|a, b| {
        let (a, b) = (
            strsim::jaro_winkler(&tail(a), pattern),
            strsim::jaro_winkler(&tail(b), pattern),
        );
        b.total_cmp(&a)
    });
    names.truncate(3);
    if names.is_empty() {
        "(the model has no place for this method)".to_string()
    } else {
        names.join(", ")
    }
}
