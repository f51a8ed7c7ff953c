//! The bank: all trainable factors of one adapter, each owned once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use burn::module::{Module, ModuleDisplay, Param, ParamId, Reparameterizer};
use burn::tensor::Tensor;

use crate::config::AdapterConfig;
use crate::error::AdapterError;
use crate::methods::parts::{BoundParts, Part};
use crate::methods::vera::Projection;
use crate::methods::{Bound, Factors};
use crate::site::{ParamInfo, Places, Site};
use crate::weights::Weights;

/// A group of sites that share the factors of the same index.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Name: the projection type, the pattern, or the site.
    pub name: String,
    /// Its sites, in traversal order; the first one owns the group on disk.
    pub sites: Vec<Site>,
}

/// All trainable factors of one adapter. `factors[i]` belongs to `groups[i]`.
#[derive(Module, Debug, Default)]
pub struct Bank {
    /// The factors, one entry a group.
    pub factors: Vec<Factors>,
    /// The frozen matrices that all groups of VeRA share.
    pub projection: Option<Projection>,
    #[module(skip)]
    groups: Arc<Vec<Group>>,
    #[module(skip)]
    by_path: Arc<HashMap<String, Vec<Place>>>,
}

/// Where a group acts on a parameter.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    group: usize,
    /// First column and width, for a block of a fused weight.
    block: Option<(usize, usize)>,
}

impl Bank {
    fn new(factors: Vec<Factors>, groups: Vec<Group>, projection: Option<Projection>) -> Self {
        let mut by_path: HashMap<String, Vec<Place>> = HashMap::new();
        for (index, group) in groups.iter().enumerate() {
            for site in &group.sites {
                let place = Place {
                    group: index,
                    block: site.block.as_ref().map(|block| (block.start, site.d_out)),
                };
                if factors[index].edits_bias() {
                    by_path.entry(site.bias_path()).or_default().push(place.clone());
                }
                by_path.entry(site.path.clone()).or_default().push(place);
            }
        }
        for places in by_path.values_mut() {
            places.sort_by_key(|place| place.block);
        }
        Self {
            factors,
            projection,
            groups: Arc::new(groups),
            by_path: Arc::new(by_path),
        }
    }

    /// The bank that `config` asks for, on the model's device.
    pub(crate) fn init<M: Module + ModuleDisplay>(
        config: &AdapterConfig,
        model: &M,
        places: &Places,
    ) -> Result<Self, AdapterError> {
        let Some(recipe) = config.method.recipe() else {
            return Ok(Self::default());
        };
        let device = model.devices().into_iter().next().unwrap_or_default();
        let sites = recipe.sites(places, &config.targets)?;
        let groups = recipe.groups(&sites)?;
        let factors = recipe.make(&groups, &Weights::of(model, &sites), &device)?;
        Ok(Self::new(factors, groups, recipe.projection(&sites, &device)))
    }

    /// The groups, in the order of `factors`.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Parameters of the bank that are saved but not trained: A of LoRA-FA, the matrices of VeRA.
    pub fn frozen(&self) -> HashSet<ParamId> {
        let shared = self
            .projection
            .iter()
            .flat_map(|projection| [projection.a.id, projection.b.id]);
        self.factors.iter().filter_map(Factors::frozen).chain(shared).collect()
    }

    /// The factors B of LoRA: what LoRA+ (Hayou et al. 2024, arXiv 2402.12354) trains with a learning rate
    /// `loraplus_lr_ratio` times that of all others.
    pub fn lora_b(&self) -> Vec<ParamId> {
        let b = self.factors.iter().filter_map(|factors| match factors {
            Factors::Lora(lora) => Some(lora.b.id),
            _ => None,
        });
        b.collect()
    }

    /// `model` with every site carrying its factors: handles only, microseconds.
    pub fn bind<M: Module>(&self, model: M) -> M {
        if self.factors.is_empty() {
            return model;
        }
        model.apply_reparameterization(Binder {
            bound: self.handles(),
            by_path: &self.by_path,
        })
    }

    /// What is bound to each site's parameter, by path.
    pub(crate) fn bound(&self) -> HashMap<String, Bound> {
        let bound = self.handles();
        let places = self.by_path.iter();
        places
            .map(|(path, places)| (path.clone(), at(places, &bound)))
            .collect()
    }

    /// Name on disk of a parameter of this bank; none for what is made anew instead of saved.
    pub(crate) fn name_on_disk(&self, param: &ParamInfo) -> Option<String> {
        let path = param.torch_name();
        if let Some(field) = path.strip_prefix("projection.") {
            let saved = self.projection.as_ref().is_some_and(Projection::is_saved);
            return saved.then(|| format!("base_model.vera_{}", field.to_uppercase()));
        }
        // Other paths read `factors.<group>.<Method>.<field>`.
        let mut parts = path.splitn(4, '.').skip(1);
        let group: usize = parts.next()?.parse().ok()?;
        let field = parts.nth(1)?;
        let name = self.factors[group].name_on_disk(&self.groups[group].sites[0], field);
        Some(format!("{}{name}", crate::storage::PREFIX))
    }

    fn handles(&self) -> Vec<Bound> {
        let projection = self.projection.as_ref();
        self.factors.iter().map(|factors| factors.bind(projection)).collect()
    }
}

/// Every site a group of its own.
pub(crate) fn own_groups(sites: &[Site]) -> Vec<Group> {
    let own = sites
        .iter()
        .enumerate()
        .map(|(index, site)| (site.module(), vec![index]));
    grouped(sites, own.collect())
}

/// The groups of the given names and members (indices into `sites`).
pub(crate) fn grouped(sites: &[Site], members: Vec<(String, Vec<usize>)>) -> Vec<Group> {
    let sites = |members: Vec<usize>| members.into_iter().map(|index| sites[index].clone()).collect();
    members
        .into_iter()
        .map(|(name, members)| Group {
            name,
            sites: sites(members),
        })
        .collect()
}

/// Refuses a rank that is 0 or above `max`.
pub(crate) fn check_rank(rank: usize, site: &Site, max: usize) -> Result<(), AdapterError> {
    if rank == 0 || rank > max {
        return Err(AdapterError::BadRank {
            rank,
            site: site.path.clone(),
            d_in: site.d_in,
            d_out: site.d_out,
            max,
        });
    }
    Ok(())
}

fn at(places: &[Place], bound: &[Bound]) -> Bound {
    let parts = places.iter().filter_map(|place| {
        let (start, width) = place.block?;
        let bound = bound[place.group].clone();
        Some(Part { start, width, bound })
    });
    let parts: Vec<Part> = parts.collect();
    match parts.is_empty() {
        true => bound[places[0].group].clone(),
        false => Bound::Parts(BoundParts { parts }),
    }
}

struct Binder<'a> {
    bound: Vec<Bound>,
    by_path: &'a HashMap<String, Vec<Place>>,
}

impl Reparameterizer for Binder<'_> {
    type Reparam = Bound;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Bound>) {
        let bound = self.by_path.get(path).map(|places| at(places, &self.bound));
        (param, bound)
    }
}
