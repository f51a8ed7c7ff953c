//! The bank: all factors of one adapter, each owned once.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use burn::module::{Module, ModuleDisplay, Param, ParamId, Reparameterizer};
use burn::tensor::Tensor;

use crate::config::AdapterConfig;
use crate::edit::{Bound, Composed, Rebind};
use crate::error::AdapterError;
use crate::factors::{Factors, Spec};
use crate::group::Group;
use crate::method::Method;
use crate::methods::TokenRows;
use crate::parts;
use crate::site::{self, ParamInfo, Places, Site};
use crate::weights::Weights;

/// Start of every key on disk.
const ROOT: &str = "base_model";

/// All factors of one adapter. `factors[i]` belongs to `groups()[i]`.
#[derive(Module, Debug, Default)]
pub struct Bank {
    /// The factors, one entry per group.
    pub factors: Vec<Factors>,
    /// What all groups share, such as VeRA's frozen matrices.
    pub shared: Factors,
    #[module(skip)]
    plan: Arc<Plan>,
}

/// What does not change during training.
#[derive(Default)]
struct Plan {
    groups: Vec<Group>,
    /// For each edit, the group whose factors it is made from, and how: one per group, or one per site where scales differ.
    rebinds: Vec<(usize, Rebind)>,
    by_path: HashMap<String, Vec<Place>>,
    /// Number of weights with several places, which share what is composed.
    tied: usize,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.groups.iter().map(|group| &group.name))
            .finish()
    }
}

/// Where an edit acts on a parameter.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    /// Index into the plan's `rebinds`.
    rebind: usize,
    /// First column and width, for a block of a fused weight.
    block: Option<(usize, usize)>,
    /// Number of the tied weight that this is a place of.
    tied: Option<usize>,
}

impl Bank {
    /// The bank of `config`'s method, on the model's device.
    pub(crate) fn init<M: Module + ModuleDisplay>(
        config: &AdapterConfig,
        model: &M,
        places: &Places,
    ) -> Result<Self, AdapterError> {
        let mut owned: Vec<(Arc<dyn Method>, Group)> = Vec::new();
        let mut factors = Vec::new();
        let mut shared = Factors::default();
        let device = model.devices().into_iter().next().unwrap_or_default();
        let tokens: Option<Arc<dyn Method>> = match &config.targets.trainable_token_indices {
            Some(tokens) => Some(Arc::new(TokenRows::new(tokens.clone()))),
            None => None,
        };
        for method in [Some(config.method.clone()), tokens].into_iter().flatten() {
            let sites = method.sites(places, &config.targets)?;
            if sites.is_empty() {
                continue;
            }
            check_taken(&*method, &sites)?;
            let groups = method.groups(&sites)?;
            let weights = Weights::of(model, &sites);
            for group in &groups {
                check_ranks(&*method, group)?;
                factors.push(method.start(group, &weights, &device)?);
            }
            let all = method.shared(&groups, &device);
            for (group, own) in groups.iter().zip(&factors[factors.len() - groups.len()..]) {
                check_names(&*method, group, &own.joined(&all))?;
            }
            shared = shared.joined(&all);
            owned.extend(groups.into_iter().map(|group| (method.clone(), group)));
        }
        let groups: Vec<Group> = owned.iter().map(|(_, group)| group.clone()).collect();
        if let Some(path) = adapted_twice(&groups) {
            return Err(AdapterError::AdaptedTwice { path });
        }
        let rebind = |method: &Arc<dyn Method>, group: Group| {
            let method = method.clone();
            Rebind::new(move |factors| method.bind(&group, factors))
        };
        let mut by_path: HashMap<String, Vec<Place>> = HashMap::new();
        let mut rebinds = Vec::new();
        let mut tied: Vec<&str> = Vec::new();
        for (index, (method, group)) in owned.iter().enumerate() {
            let edits_bias = method.edits_bias(group);
            for (member, site) in group.sites.iter().enumerate() {
                if member == 0 || !group.scales.is_empty() {
                    rebinds.push((index, rebind(method, group.bound_at(member))));
                }
                let place = Place {
                    rebind: rebinds.len() - 1,
                    block: site.block.as_ref().map(|block| (block.start, site.d_out)),
                    tied: None,
                };
                if edits_bias {
                    by_path.entry(site.bias_path()).or_default().push(place.clone());
                }
                // The blocks of a tied weight are composed together.
                let number = tied.iter().position(|path| *path == site.path);
                if number.is_none() && !site.tied.is_empty() {
                    tied.push(&site.path);
                }
                let place = Place {
                    tied: number
                        .or_else(|| tied.len().checked_sub(1))
                        .filter(|_| !site.tied.is_empty()),
                    ..place
                };
                for path in site.tied.iter().chain([&site.path]) {
                    by_path.entry(path.clone()).or_default().push(place.clone());
                }
            }
        }
        for places in by_path.values_mut() {
            places.sort_by_key(|place| place.block);
        }
        let tied = tied.len();
        Ok(Self {
            factors,
            shared,
            plan: Arc::new(Plan {
                groups,
                rebinds,
                by_path,
                tied,
            }),
        })
    }

    /// The groups, in the order of `factors`.
    pub fn groups(&self) -> &[Group] {
        &self.plan.groups
    }

    /// Id and spec of every factor, in the order in which the bank is visited.
    pub fn specs(&self) -> impl Iterator<Item = (ParamId, &Spec)> {
        self.factors.iter().chain([&self.shared]).flat_map(Factors::specs)
    }

    /// Parameters of the bank that are not trained: A of LoRA-FA, the matrices of VeRA, constants.
    pub fn frozen(&self) -> HashSet<ParamId> {
        let frozen = self.specs().filter(|(_, spec)| !spec.trained);
        frozen.map(|(id, _)| id).collect()
    }

    /// `model` with every site bound to its factors. Copies no tensor.
    pub fn bind<M: Module>(&self, model: M) -> M {
        if self.factors.is_empty() {
            return model;
        }
        model.apply_reparameterization(Binder {
            bound: self.handles(),
            by_path: &self.plan.by_path,
            composed: (0..self.plan.tied).map(|_| Composed::default()).collect(),
        })
    }

    /// What is bound to each site's parameter, by path.
    pub(crate) fn bound(&self) -> HashMap<String, Bound> {
        let bound = self.handles();
        let places = self.plan.by_path.iter();
        places
            .map(|(path, places)| (path.clone(), at(places, &bound, Composed::default())))
            .collect()
    }

    /// The factors that a method saves for `groups` and their keys on disk, without allocating them.
    pub(crate) fn expected(method: &dyn Method, groups: &[Group]) -> Vec<(Spec, String)> {
        let own = |group: &Group| {
            let module = format!("{ROOT}.model.{}", group.site().stored_as());
            let saved = method.specs(group).into_iter().filter(|spec| spec.saved);
            saved
                .map(move |spec| {
                    let name = format!("{module}.{}", spec.suffix);
                    (spec, name)
                })
                .collect::<Vec<_>>()
        };
        groups.iter().flat_map(own).collect()
    }

    /// Every saved factor and its name on disk, by its path in the bank.
    pub(crate) fn named(&self) -> Vec<(ParamInfo, String)> {
        let own = self.groups().iter().zip(&self.factors).flat_map(|(group, factors)| {
            let module = format!("{ROOT}.model.{}", group.site().stored_as());
            factors.specs().map(move |(_, spec)| (spec, spec.key(&module)))
        });
        let shared = self
            .shared
            .specs()
            .map(|(_, spec)| (spec, format!("{ROOT}.{}", spec.suffix)));
        let named = site::params(self).into_iter().zip(own.chain(shared));
        let saved = named.filter(|(_, (spec, _))| spec.saved);
        saved
            .map(|(mut param, (spec, name))| {
                param.transposed = spec.transposed;
                (param, name)
            })
            .collect()
    }

    /// Keys under which factors of bare `Param` fields were stored before keys included the field's name: (key, former key),
    /// where the former key belongs to one factor only.
    pub(crate) fn former_names(&self) -> Vec<(String, String)> {
        let mut names = Vec::new();
        for (group, factors) in self.groups().iter().zip(&self.factors) {
            let name = group.module();
            let module = group.site().path.rsplit_once('.').map(|(module, _)| module);
            let Some(module) = module.filter(|_| group.site().stored_as() == group.site().path) else {
                continue;
            };
            for (_, spec) in factors.specs() {
                let on_disk = |module: &str| format!("{ROOT}.model.{module}.{}", spec.suffix);
                names.push((on_disk(&name), on_disk(module)));
            }
        }
        let former: Vec<String> = names.iter().map(|(_, former)| former.clone()).collect();
        names.retain(|(_, name)| former.iter().filter(|other| *other == name).count() == 1);
        names
    }

    fn handles(&self) -> Vec<Bound> {
        let joined: Vec<Factors> = self
            .factors
            .iter()
            .map(|factors| factors.joined(&self.shared))
            .collect();
        let rebinds = self.plan.rebinds.iter();
        rebinds
            .map(|(group, rebind)| Bound::new(joined[*group].clone(), rebind.clone()))
            .collect()
    }
}

/// Refuses a site of a kind that the method cannot act on.
pub(crate) fn check_taken(method: &dyn Method, sites: &[Site]) -> Result<(), AdapterError> {
    match sites.iter().find(|site| !method.takes(site.kind)) {
        None => Ok(()),
        Some(site) => Err(AdapterError::NotTaken {
            method: method.name().to_string(),
            site: site.path.clone(),
            kind: site.kind,
        }),
    }
}

/// Refuses a factor with more dimensions than [`Factors`] hold.
fn check_ranks(method: &dyn Method, group: &Group) -> Result<(), AdapterError> {
    let specs = method.specs(group);
    match specs.iter().find(|spec| !(1..=4).contains(&spec.shape.len())) {
        None => Ok(()),
        Some(spec) => Err(AdapterError::BadFactors {
            method: method.name().to_string(),
            site: group.module(),
            problem: format!("a factor '{}' of shape {:?}", spec.name, spec.shape),
            advice: "a factor has one to four dimensions",
        }),
    }
}

/// Refuses two factors of the same name: a method would read only the first, and a file would fill only one.
fn check_names(method: &dyn Method, group: &Group, factors: &Factors) -> Result<(), AdapterError> {
    let mut names = HashSet::new();
    match factors.specs().find(|(_, spec)| !names.insert(&spec.name)) {
        None => Ok(()),
        Some((_, spec)) => Err(AdapterError::BadFactors {
            method: method.name().to_string(),
            site: group.module(),
            problem: format!("two factors called '{}'", spec.name),
            advice: "give each factor of a group, and each that all groups share, a name of its own",
        }),
    }
}

/// The path of a parameter that two sites edit, unless they are blocks of it.
fn adapted_twice(groups: &[Group]) -> Option<String> {
    let sites = groups.iter().flat_map(|group| &group.sites);
    let places = sites.flat_map(|site| {
        site.tied
            .iter()
            .chain([&site.path])
            .map(|path| (path, site.block.is_some()))
    });
    let mut seen: HashMap<&String, bool> = HashMap::new();
    for (path, is_block) in places {
        if seen.insert(path, is_block).is_some_and(|other| !(other && is_block)) {
            return Some(path.clone());
        }
    }
    None
}

fn at(places: &[Place], bound: &[Bound], composed: Composed) -> Bound {
    let block = |place: &Place| {
        let (start, width) = place.block?;
        Some((start, width, bound[place.rebind].clone()))
    };
    let blocks: Vec<_> = places.iter().filter_map(block).collect();
    let bound = match blocks.is_empty() {
        true => bound[places[0].rebind].clone(),
        false => parts::bound(blocks),
    };
    bound.at(composed)
}

struct Binder<'a> {
    bound: Vec<Bound>,
    by_path: &'a HashMap<String, Vec<Place>>,
    /// By number of the tied weight.
    composed: Vec<Composed>,
}

impl Reparameterizer for Binder<'_> {
    type Reparam = Bound;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Bound>) {
        let bound = self.by_path.get(path).map(|places| {
            let tied = places[0].tied.map(|number| self.composed[number].clone());
            at(places, &self.bound, tied.unwrap_or_default())
        });
        (param, bound)
    }
}
