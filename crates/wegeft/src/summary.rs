//! The summary of an adapter: groups, sites, shapes and counts.

use std::fmt;

use burn::module::{Module, ModuleDisplay};

use crate::adapted::Adapted;
use crate::factors::Factors;
use crate::site;

/// Counts of an adapted model.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// One line per group.
    pub groups: Vec<GroupSummary>,
    /// Trainable parameters in the bank.
    pub adapter_params: usize,
    /// Parameters of `modules_to_save`; all parameters of the model for full fine-tuning.
    pub saved_params: usize,
    /// Frozen parameters of the model.
    pub frozen_params: usize,
}

/// One group of sites.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupSummary {
    /// Name of the group.
    pub name: String,
    /// Paths of its sites.
    pub sites: Vec<String>,
    /// Shape of the first site's weight, `[d_in, d_out]`.
    pub weight: [usize; 2],
    /// Trainable parameters.
    pub params: usize,
}

impl Summary {
    /// Adapter parameters as a percentage of the frozen ones, as WeGeFT's released scripts report it; the head is in neither
    /// count. 100 if nothing is frozen.
    pub fn percent(&self) -> f64 {
        if self.frozen_params == 0 {
            return 100.0;
        }
        100.0 * self.adapter_params as f64 / self.frozen_params as f64
    }

    /// All parameters that are trained.
    pub fn trainable_params(&self) -> usize {
        self.adapter_params + self.saved_params
    }
}

impl<M: Module + ModuleDisplay> Adapted<M> {
    /// Groups, sites, shapes and counts.
    pub fn summary(&self) -> Summary {
        let trained = |factors: &Factors| factors.specs().map(|(_, spec)| spec.trained_len()).sum();
        let groups: Vec<GroupSummary> = self
            .bank()
            .groups()
            .iter()
            .zip(&self.bank().factors)
            .map(|(group, factors)| GroupSummary {
                name: group.name.clone(),
                sites: group.sites.iter().map(|site| site.path.clone()).collect(),
                weight: [group.sites[0].d_in, group.sites[0].d_out],
                params: trained(factors),
            })
            .collect();
        let total: usize = site::params(self.backbone()).iter().map(site::ParamInfo::len).sum();
        let saved: usize = self.saved_params().iter().map(site::ParamInfo::len).sum();
        Summary {
            adapter_params: self.bank().specs().map(|(_, spec)| spec.trained_len()).sum(),
            groups,
            saved_params: saved,
            frozen_params: total - saved,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in &self.groups {
            let [d_in, d_out] = group.weight;
            writeln!(
                f,
                "{}: {} site(s) of [{d_in}, {d_out}], {} trainable",
                group.name,
                group.sites.len(),
                group.params
            )?;
            for site in &group.sites {
                writeln!(f, "  {site}")?;
            }
        }
        writeln!(
            f,
            "adapter: {} trainable, {:.3} % of the frozen part",
            self.adapter_params,
            self.percent()
        )?;
        write!(
            f,
            "trained in full: {}; frozen: {}",
            self.saved_params, self.frozen_params
        )
    }
}

/// The [`Summary`], which burn-train prints before training.
impl<M: Module + ModuleDisplay> fmt::Display for Adapted<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.summary().fmt(f)
    }
}
