//! The bank: all trainable factors of one adapter, each owned once.

use std::collections::HashMap;
use std::sync::Arc;

use burn::module::{Module, Param, Reparameterizer};
use burn::tensor::{Device, Tensor};

use crate::error::AdapterError;
use crate::methods::{Bound, Factors, lora::LoraConfig, wegeft::WegeftConfig};
use crate::site::{self, Site};

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
    pub(crate) groups: Arc<Vec<Group>>,
    #[module(skip)]
    by_path: Arc<HashMap<String, usize>>,
}

impl Bank {
    fn new(factors: Vec<Factors>, groups: Vec<Group>) -> Self {
        let by_path = groups
            .iter()
            .enumerate()
            .flat_map(|(index, group)| group.sites.iter().map(move |site| (site.path.clone(), index)))
            .collect();
        Self {
            factors,
            groups: Arc::new(groups),
            by_path: Arc::new(by_path),
        }
    }

    pub(crate) fn wegeft(config: &WegeftConfig, sites: &[Site], device: &Device) -> Result<Self, AdapterError> {
        check_alpha("alpha", config.alpha)?;
        for site in sites {
            check_rank(config.r, site, site.d_in)?;
        }
        let groups: Vec<Group> = site::group(sites, &config.sharing)?
            .into_iter()
            .map(|(name, members)| Group {
                name,
                sites: members.into_iter().map(|i| sites[i].clone()).collect(),
            })
            .collect();
        let factors = groups
            .iter()
            .map(|group| Factors::Wegeft(config.init(group.sites[0].d_in, device)))
            .collect();
        Ok(Self::new(factors, groups))
    }

    pub(crate) fn lora(config: &LoraConfig, sites: &[Site], device: &Device) -> Result<Self, AdapterError> {
        check_alpha("lora_alpha", config.alpha)?;
        for site in sites {
            check_rank(config.r, site, site.d_in.min(site.d_out))?;
        }
        let factors = sites
            .iter()
            .map(|site| Factors::Lora(config.init(site.d_in, site.d_out, device)))
            .collect();
        let groups = sites
            .iter()
            .map(|site| Group {
                name: site.module().to_string(),
                sites: vec![site.clone()],
            })
            .collect();
        Ok(Self::new(factors, groups))
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

fn check_alpha(field: &str, alpha: f64) -> Result<(), AdapterError> {
    if alpha.is_finite() {
        return Ok(());
    }
    Err(AdapterError::BadField {
        field: field.to_string(),
        message: format!("{alpha} is not a finite number"),
    })
}

struct Binder<'a> {
    bound: Vec<Bound>,
    by_path: &'a HashMap<String, usize>,
}

impl Reparameterizer for Binder<'_> {
    type Reparam = Bound;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Bound>) {
        let bound = self.by_path.get(path).map(|index| self.bound[*index].clone());
        (param, bound)
    }
}
