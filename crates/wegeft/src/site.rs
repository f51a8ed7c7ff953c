//! Sites: the weights of a model by name, and which of them a config targets.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use regex::Regex;

use crate::config::{Fused, Sharing, TargetModules, Targets};
use crate::error::AdapterError;

/// One float parameter of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamInfo {
    /// Path in the module tree, `blocks.3.attn.proj.weight`.
    pub path: String,
    /// Shape in Burn's layout; a linear weight is `[d_in, d_out]`.
    pub shape: Vec<usize>,
    /// Name of the module type that holds it (`Linear`, `LayerNorm`, …).
    pub holder: String,
    /// Identity of the parameter.
    pub id: ParamId,
}

impl ParamInfo {
    /// Path of the module that holds the parameter, `blocks.3.attn.proj`.
    pub fn module(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(module, _)| module)
    }

    /// Name as a PyTorch checkpoint spells it: `gamma` and `beta` of norms are `weight` and `bias`.
    pub fn torch_name(&self) -> String {
        match self.path.rsplit_once('.') {
            Some((module, "gamma")) => format!("{module}.weight"),
            Some((module, "beta")) => format!("{module}.bias"),
            _ => self.path.clone(),
        }
    }

    /// True for weights that PyTorch stores transposed (`[d_out, d_in]`).
    pub fn is_linear_weight(&self) -> bool {
        self.holder == "Linear" && self.shape.len() == 2
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True if the parameter holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

struct Collector {
    path: Vec<String>,
    holders: Vec<String>,
    params: Vec<ParamInfo>,
    hooks: Vec<ParamInfo>,
}

/// Field of [`crate::Hook`] that bound state is attached to; it is no weight.
pub(crate) const EDIT_POINT: &str = "edit_point";

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push(name.to_string());
        let holder = container_type.rsplit(':').next().unwrap_or(container_type);
        self.holders.push(holder.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
        self.holders.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let list = match self.path.last().is_some_and(|field| field == EDIT_POINT) {
            true => &mut self.hooks,
            false => &mut self.params,
        };
        list.push(ParamInfo {
            path: self.path.join("."),
            shape: param.lazy_shape().to_vec(),
            holder: self.holders.last().cloned().unwrap_or_default(),
            id: param.id,
        });
    }
}

fn collect<M: Module>(model: &M) -> Collector {
    let mut collector = Collector {
        path: Vec::new(),
        holders: Vec::new(),
        params: Vec::new(),
        hooks: Vec::new(),
    };
    model.visit(&mut collector);
    collector
}

/// Every float parameter of `model`, in traversal order.
pub fn params<M: Module>(model: &M) -> Vec<ParamInfo> {
    collect(model).params
}

/// Every [`crate::Hook`] of `model`, in traversal order: its module path and its width.
pub fn hooks<M: Module>(model: &M) -> Vec<(String, usize)> {
    let hooks = collect(model).hooks.into_iter();
    hooks.map(|hook| (hook.module().to_string(), hook.len())).collect()
}

/// What an adapter acts on: a rank-2 weight, a block of its columns, or a hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Path of the parameter, `blocks.3.attn.proj.weight`.
    pub path: String,
    /// Input size; the width of a hook.
    pub d_in: usize,
    /// Output size: of the block, if it is one; the width of a hook.
    pub d_out: usize,
    /// The block of a fused weight.
    pub block: Option<BlockOf>,
}

/// A block of columns of a fused weight.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockOf {
    /// Its name, `q`.
    pub name: String,
    /// Its first column.
    pub start: usize,
    /// Columns of the whole weight.
    pub whole: usize,
}

impl Site {
    /// Path of the module, `blocks.3.attn.proj`; a block's name follows it, `blocks.3.attn.qkv.q`.
    pub fn module(&self) -> String {
        let module = self
            .path
            .rsplit_once('.')
            .map_or(self.path.as_str(), |(module, _)| module);
        match &self.block {
            Some(block) => format!("{module}.{}", block.name),
            None => module.to_string(),
        }
    }
}

/// True if `module` is `name` or ends with `.name`: PEFT's rule for lists of names.
pub fn name_matches(module: &str, name: &str) -> bool {
    module == name || module.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

/// True if the parameter lies in a module that `modules_to_save` names.
pub fn is_saved(path: &str, modules_to_save: &[String]) -> bool {
    path.match_indices('.')
        .any(|(end, _)| modules_to_save.iter().any(|name| name_matches(&path[..end], name)))
}

fn regex(pattern: &str) -> Result<Regex, AdapterError> {
    Regex::new(&format!("^(?:{pattern})$")).map_err(|error| AdapterError::BadPattern {
        pattern: pattern.to_string(),
        message: error.to_string().replace('\n', " "),
    })
}

/// PEFT's rule for the keys of `rank_pattern`: the whole name, or its end after a dot.
pub(crate) fn module_regex(key: &str) -> Result<Regex, AdapterError> {
    regex(&format!(r"(?:.*\.)?(?:{key})"))
}

/// True if `key`, a valid pattern, matches `module`.
pub(crate) fn pattern_matches(key: &str, module: &str) -> bool {
    module_regex(key).is_ok_and(|regex| regex.is_match(module))
}

fn layer_index(path: &str) -> Option<usize> {
    path.split('.').find_map(|part| part.parse().ok())
}

/// The sites of `params` that `targets` names, in traversal order.
///
/// # Errors
/// A pattern that matches nothing, or a match without a rank-2 weight.
pub fn find(params: &[ParamInfo], targets: &Targets) -> Result<Vec<Site>, AdapterError> {
    let mut chosen = vec![false; params.len()];
    match &targets.target_modules {
        TargetModules::Names(names) => {
            for name in names {
                select(params, targets, name, |module| name_matches(module, name), &mut chosen)?;
            }
        }
        TargetModules::Regex(pattern) => {
            let matcher = regex(pattern)?;
            select(params, targets, pattern, |module| matcher.is_match(module), &mut chosen)?;
        }
    }
    let mut sites = Vec::new();
    for (param, _) in params.iter().zip(chosen).filter(|(_, chosen)| *chosen) {
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

/// The adapted blocks of a fused weight, each a site.
fn blocks(whole: &Site, fused: &Fused) -> Result<Vec<Site>, AdapterError> {
    let bad = |message: String| Err(AdapterError::bad_field("fused", format!("'{}': {message}", whole.path)));
    let count = fused.blocks.len();
    let widths = match fused.widths.is_empty() {
        true if count == 0 || whole.d_out % count != 0 => {
            return bad(format!(
                "{count} equal blocks do not divide its {} columns; set widths",
                whole.d_out
            ));
        }
        true => vec![whole.d_out / count; count],
        false => fused.widths.clone(),
    };
    if widths.len() != count || widths.iter().sum::<usize>() != whole.d_out {
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

fn select(
    params: &[ParamInfo],
    targets: &Targets,
    pattern: &str,
    matches: impl Fn(&str) -> bool,
    chosen: &mut [bool],
) -> Result<(), AdapterError> {
    let mut found = false;
    for (index, param) in params.iter().enumerate() {
        let module = param.module();
        if !matches(module) || param.path.ends_with(".bias") {
            continue;
        }
        found = true;
        if param.shape.len() != 2 {
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
    }
    if found && chosen.iter().any(|chosen| *chosen) {
        return Ok(());
    }
    Err(AdapterError::NoMatch {
        pattern: pattern.to_string(),
        nearest: nearest(params, pattern),
    })
}

/// The three module names most like `pattern`, each with its layer number left out.
fn nearest(params: &[ParamInfo], pattern: &str) -> String {
    let mut names: Vec<String> = params
        .iter()
        .filter(|param| param.shape.len() == 2)
        .map(|param| kind(param.module()))
        .collect();
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
        "(the model has no rank-2 weight)".to_string()
    } else {
        names.join(", ")
    }
}

/// Projection type of a module: its path with every layer number replaced by `*`.
pub fn kind(module: &str) -> String {
    module
        .split('.')
        .map(|part| if part.parse::<usize>().is_ok() { "*" } else { part })
        .collect::<Vec<_>>()
        .join(".")
}

/// Sorts sites into the groups that share one generator. Each group is (name, indices into `sites`).
///
/// # Errors
/// A group pattern that is no regex or matches no site, a site in no group.
pub fn group(sites: &[Site], sharing: &Sharing) -> Result<Vec<(String, Vec<usize>)>, AdapterError> {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
    let compiled = match sharing {
        Sharing::Groups(patterns) => patterns
            .iter()
            .map(|pattern| regex(&format!("(?:{pattern})(?:\\..*)?")).map(|regex| (pattern.clone(), regex)))
            .collect::<Result<Vec<_>, _>>()?,
        _ => Vec::new(),
    };
    for (index, site) in sites.iter().enumerate() {
        let name = match sharing {
            Sharing::Kind => kind(&site.module()),
            Sharing::All => "all".to_string(),
            Sharing::Site => site.module(),
            Sharing::Groups(_) => compiled
                .iter()
                .find(|(_, regex)| regex.is_match(&site.module()))
                .map(|(pattern, _)| pattern.clone())
                .ok_or_else(|| {
                    let message = format!(
                        "site '{}' is in none of the groups; add a pattern that matches it from the start of its name",
                        site.module()
                    );
                    AdapterError::bad_field("groups", message)
                })?,
        };
        let slot = *by_name.entry(name.clone()).or_insert_with(|| {
            groups.push((name.clone(), Vec::new()));
            groups.len() - 1
        });
        groups[slot].1.push(index);
    }
    for (pattern, _) in &compiled {
        if !by_name.contains_key(pattern) {
            let names: Vec<_> = sites.iter().map(|site| kind(&site.module())).collect();
            return Err(AdapterError::NoMatch {
                pattern: pattern.clone(),
                nearest: names[..names.len().min(3)].join(", "),
            });
        }
    }
    Ok(groups)
}

/// Checks that all members of a group agree in a size, such as d_in.
///
/// # Errors
/// The first member that differs.
pub(crate) fn check_equal(
    group: &str,
    sites: &[Site],
    size: &'static str,
    of: impl Fn(&Site) -> usize,
) -> Result<(), AdapterError> {
    let Some((first, rest)) = sites.split_first() else {
        return Ok(());
    };
    match rest.iter().find(|site| of(site) != of(first)) {
        None => Ok(()),
        Some(site) => Err(AdapterError::Unequal {
            group: group.to_string(),
            size,
            first: first.module(),
            first_size: of(first),
            site: site.module(),
            site_size: of(site),
        }),
    }
}
