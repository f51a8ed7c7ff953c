//! The bank: all trainable factors of one adapter, each owned once.

use std::collections::HashMap;
use std::sync::Arc;

use burn::module::{Module, ModuleDisplay, Param, Reparameterizer};
use burn::tensor::{Device, Tensor};

use crate::config::{AdapterConfig, Method};
use crate::error::AdapterError;
use crate::methods::parts::{BoundParts, Part};
use crate::methods::{Bound, Factors, lora::LoraConfig, wegeft::WegeftConfig};
use crate::site::{self, ParamInfo, Site};

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
    fn new(factors: Vec<Factors>, groups: Vec<Group>) -> Self {
        let mut by_path: HashMap<String, Vec<Place>> = HashMap::new();
        for (index, group) in groups.iter().enumerate() {
            for site in &group.sites {
                by_path.entry(site.path.clone()).or_default().push(Place {
                    group: index,
                    block: site.block.as_ref().map(|block| (block.start, site.d_out)),
                });
            }
        }
        for places in by_path.values_mut() {
            places.sort_by_key(|place| place.block);
        }
        Self {
            factors,
            groups: Arc::new(groups),
            by_path: Arc::new(by_path),
        }
    }

    /// The bank that `config` asks for, on the model's device.
    pub(crate) fn init<M: Module + ModuleDisplay>(
        config: &AdapterConfig,
        model: &M,
        params: &[ParamInfo],
    ) -> Result<Self, AdapterError> {
        let device = model.devices().into_iter().next().unwrap_or_default();
        let targets = &config.targets;
        match &config.method {
            Method::Wegeft(method) => Self::wegeft(method, &site::find(params, targets)?, &device),
            Method::Lora(method) => Self::lora(method, &site::find(params, targets)?, &device),
            Method::Linear | Method::Full => Ok(Self::default()),
        }
    }

    fn wegeft(config: &WegeftConfig, sites: &[Site], device: &Device) -> Result<Self, AdapterError> {
        config.check()?;
        config.patterns.check(sites)?;
        let rank = |site: &Site| config.patterns.of(&site.module(), config.r, config.alpha).0;
        for site in sites {
            check_rank(rank(site), site, config.shared_size(site))?;
        }
        let groups = groups(sites, site::group(sites, &config.sharing)?);
        for group in &groups {
            let size = config.shared_size_name();
            site::check_equal(&group.name, &group.sites, size, |site| config.shared_size(site))?;
            site::check_equal(&group.name, &group.sites, "r", rank)?;
            if config.generator.is_tied_to_d_out() {
                site::check_equal(&group.name, &group.sites, "d_out", |site| site.d_out)?;
            }
        }
        let factors = groups
            .iter()
            .map(|group| Factors::Wegeft(config.init(&group.sites[0], device)))
            .collect();
        Ok(Self::new(factors, groups))
    }

    fn lora(config: &LoraConfig, sites: &[Site], device: &Device) -> Result<Self, AdapterError> {
        config.check()?;
        config.patterns.check(sites)?;
        for site in sites {
            let (rank, _) = config.patterns.of(&site.module(), config.r, config.alpha);
            check_rank(rank, site, site.d_in.min(site.d_out))?;
        }
        let factors = sites
            .iter()
            .map(|site| Factors::Lora(config.init(site, device)))
            .collect();
        Ok(Self::new(factors, own_groups(sites)))
    }

    /// The groups, in the order of `factors`.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// `model` with every site carrying its factors: handles only, microseconds.
    pub fn bind<M: Module>(&self, model: M) -> M {
        if self.factors.is_empty() {
            return model;
        }
        model.apply_reparameterization(Binder {
            bound: self.factors.iter().map(Factors::bind).collect(),
            by_path: &self.by_path,
        })
    }

    /// What is bound to each site's parameter, by path.
    pub(crate) fn bound(&self) -> HashMap<String, Bound> {
        let bound: Vec<Bound> = self.factors.iter().map(Factors::bind).collect();
        let places = self.by_path.iter();
        places
            .map(|(path, places)| (path.clone(), at(places, &bound)))
            .collect()
    }
}

/// Every site a group of its own.
fn own_groups(sites: &[Site]) -> Vec<Group> {
    let own = sites
        .iter()
        .enumerate()
        .map(|(index, site)| (site.module(), vec![index]));
    groups(sites, own.collect())
}

fn groups(sites: &[Site], members: Vec<(String, Vec<usize>)>) -> Vec<Group> {
    let sites = |members: Vec<usize>| members.into_iter().map(|index| sites[index].clone()).collect();
    members
        .into_iter()
        .map(|(name, members)| Group {
            name,
            sites: sites(members),
        })
        .collect()
}

fn check_rank(rank: usize, site: &Site, max: usize) -> Result<(), AdapterError> {
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
