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

/// The places of a model where an adapter can act.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Float parameters, in traversal order.
    pub params: Vec<ParamInfo>,
    /// Hooks, in traversal order: their edit points, `blocks.3.output.edit_point`, `[width]`.
    pub hooks: Vec<ParamInfo>,
}

#[derive(Default)]
struct Collector {
    path: Vec<String>,
    holders: Vec<String>,
    places: Places,
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
            true => &mut self.places.hooks,
            false => &mut self.places.params,
        };
        list.push(ParamInfo {
            path: self.path.join("."),
            shape: param.lazy_shape().to_vec(),
            holder: self.holders.last().cloned().unwrap_or_default(),
            id: param.id,
        });
    }
}

/// Every place of `model`.
pub fn places<M: Module>(model: &M) -> Places {
    let mut collector = Collector::default();
    model.visit(&mut collector);
    collector.places
}

/// Every float parameter of `model`, in traversal order.
pub fn params<M: Module>(model: &M) -> Vec<ParamInfo> {
    places(model).params
}

/// Every [`crate::Hook`] of `model`, in traversal order: its module path and its width.
pub fn hooks<M: Module>(model: &M) -> Vec<(String, usize)> {
    let hooks = places(model).hooks.into_iter();
    hooks.map(|hook| (hook.module().to_string(), hook.len())).collect()
}

/// What an adapter acts on: a rank-2 weight, a block of its columns, a vector (bias, scale of a norm), or a hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Path of the parameter, `blocks.3.attn.proj.weight`.
    pub path: String,
    /// Input size; 1 for a vector; the width of a hook.
    pub d_in: usize,
    /// Output size: of the block, if it is one; the length of a vector; the width of a hook.
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
    /// The weight `[d_in, d_out]` of the linear layer `module`.
    pub fn linear(module: impl AsRef<str>, d_in: usize, d_out: usize) -> Self {
        Self {
            path: format!("{}.weight", module.as_ref()),
            d_in,
            d_out,
            block: None,
        }
    }

    /// The vector of `length` at that path: a bias, the scale of a norm.
    pub fn vector(path: impl Into<String>, length: usize) -> Self {
        Self {
            path: path.into(),
            d_in: 1,
            d_out: length,
            block: None,
        }
    }

    /// The hook `module` of that width.
    pub fn hook(module: impl AsRef<str>, width: usize) -> Self {
        Self {
            path: format!("{}.{EDIT_POINT}", module.as_ref()),
            d_in: width,
            d_out: width,
            block: None,
        }
    }

    /// Path of the bias of the same layer, `blocks.3.attn.proj.bias`.
    pub(crate) fn bias_path(&self) -> String {
        let module = self.path.rsplit_once('.').map_or("", |(module, _)| module);
        format!("{module}.bias")
    }

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

/// True if `pattern`, a regular expression for whole module paths, matches `module`; an invalid one matches nothing.
pub(crate) fn whole_matches(pattern: &str, module: &str) -> bool {
    regex(pattern).is_ok_and(|regex| regex.is_match(module))
}

fn layer_index(path: &str) -> Option<usize> {
    path.split('.').find_map(|part| part.parse().ok())
}

/// The rank-2 weights of `params` that `targets` names, in traversal order.
///
/// # Errors
/// No target at all, a pattern that matches nothing, or a match without a rank-2 weight.
pub fn find(params: &[ParamInfo], targets: &Targets) -> Result<Vec<Site>, AdapterError> {
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

/// The vectors of `params` that `accepts` takes, in the modules that `targets` names; in all modules if it names none.
///
/// # Errors
/// A pattern that matches no such vector.
pub(crate) fn find_vectors(
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

/// The hooks that `targets` names, or those that `default` names if it names none.
///
/// # Errors
/// A pattern that matches no hook.
pub(crate) fn find_hooks(hooks: &[ParamInfo], targets: &Targets, default: &[&str]) -> Result<Vec<Site>, AdapterError> {
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
