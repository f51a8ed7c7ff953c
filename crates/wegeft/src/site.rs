//! Sites: the weights of a model by name, and which of them a config targets.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use regex::Regex;

use crate::config::{Sharing, TargetModules, Targets};
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
}

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
        self.params.push(ParamInfo {
            path: self.path.join("."),
            shape: param.lazy_shape().to_vec(),
            holder: self.holders.last().cloned().unwrap_or_default(),
            id: param.id,
        });
    }
}

/// Every float parameter of `model`, in traversal order.
pub fn params<M: Module>(model: &M) -> Vec<ParamInfo> {
    let mut collector = Collector {
        path: Vec::new(),
        holders: Vec::new(),
        params: Vec::new(),
    };
    model.visit(&mut collector);
    collector.params
}

/// A rank-2 weight that an adapter acts on.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Site {
    /// Path of the weight, `blocks.3.attn.proj.weight`.
    pub path: String,
    /// Input size.
    pub d_in: usize,
    /// Output size.
    pub d_out: usize,
}

impl Site {
    /// Path of the module, `blocks.3.attn.proj`.
    pub fn module(&self) -> &str {
        self.path.strip_suffix(".weight").unwrap_or(&self.path)
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
    Ok(params
        .iter()
        .zip(chosen)
        .filter(|(_, chosen)| *chosen)
        .map(|(param, _)| Site {
            path: param.path.clone(),
            d_in: param.shape[0],
            d_out: param.shape[1],
        })
        .collect())
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
/// A group pattern that is no regex or matches no site, a site in no group, unequal d_in in a group.
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
            Sharing::Kind => kind(site.module()),
            Sharing::All => "all".to_string(),
            Sharing::Site => site.module().to_string(),
            Sharing::Groups(_) => compiled
                .iter()
                .find(|(_, regex)| regex.is_match(site.module()))
                .map(|(pattern, _)| pattern.clone())
                .ok_or_else(|| AdapterError::BadField {
                    field: "groups".to_string(),
                    message: format!(
                        "site '{}' is in none of the groups; add a pattern that matches it from the start of its name",
                        site.module()
                    ),
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
            let names: Vec<_> = sites.iter().map(|site| kind(site.module())).collect();
            return Err(AdapterError::NoMatch {
                pattern: pattern.clone(),
                nearest: names[..names.len().min(3)].join(", "),
            });
        }
    }
    for (name, members) in &groups {
        let first = &sites[members[0]];
        if let Some(site) = members.iter().map(|i| &sites[*i]).find(|site| site.d_in != first.d_in) {
            return Err(AdapterError::UnequalInputs {
                group: name.clone(),
                first: first.path.clone(),
                first_d_in: first.d_in,
                site: site.path.clone(),
                d_in: site.d_in,
            });
        }
    }
    Ok(groups)
}
