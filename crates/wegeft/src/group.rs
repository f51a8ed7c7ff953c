//! Groups: the sites that share one set of factors.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::AdapterError;
use crate::expression::{Regex, regexes};
use crate::nearest::nearest_names;
use crate::site::{Site, kind};

/// Which sites share factors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// One group per projection type and size, across all layers: the paper's setting.
    #[default]
    Kind,
    /// One group for all sites, which need equal d_in (on WeGeFT's output side, equal d_out).
    All,
    /// Each site is a group of its own.
    Site,
    /// Regular expressions matched from the start of the module path; a site joins the first that matches.
    Groups(Vec<String>),
    /// The `tied_modules` of the WeGeFT fork of PEFT: as `Groups`, but a site that no expression matches is a group of its
    /// own, an expression may match no site, and it need not match to the end of a path.
    Tied(Vec<String>),
}

/// A group of sites that share factors.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Name: the projection type, the pattern, or the site.
    pub name: String,
    /// Its sites, in traversal order; the first one owns the group on disk.
    pub sites: Vec<Site>,
    /// Its index among the adapter's groups.
    pub index: usize,
    /// Rank of its factors; 0 for methods that have none.
    pub rank: usize,
    /// Scale of its edit, such as alpha / r; 1 unless the method sets it.
    pub scale: f64,
    /// Scales of its sites if they differ; otherwise empty.
    pub scales: Vec<f64>,
}

impl Group {
    /// Each site is a group of its own.
    pub fn each(sites: &[Site]) -> Vec<Self> {
        let own = |(index, site): (usize, &Site)| Self::new(site.module(), vec![site.clone()], index);
        sites.iter().enumerate().map(own).collect()
    }

    /// The groups that `sharing` makes of `sites`. With [`Sharing::Kind`], modules of one kind but of different `size`
    /// (called
    /// `size_name`) form one group per size.
    ///
    /// # Errors
    /// A group pattern that is not a valid regular expression or matches no site, or a site that is in no group.
    pub fn shared(
        sites: &[Site],
        sharing: &Sharing,
        size_name: &str,
        size: impl Fn(&Site) -> usize,
    ) -> Result<Vec<Self>, AdapterError> {
        let mut sizes: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for site in sites {
            sizes.entry(kind(&site.module())).or_default().insert(size(site));
        }
        let compiled = match sharing {
            // What follows a module's name is a block's.
            Sharing::Groups(patterns) => compiled(patterns, r"(?:\..*)?")?,
            Sharing::Tied(patterns) => compiled(patterns, ".*")?,
            _ => Vec::new(),
        };
        let mut groups: Vec<Self> = Vec::new();
        let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
        for site in sites {
            let module = site.module();
            let name = match sharing {
                Sharing::Kind => match kind(&module) {
                    kind if sizes[&kind].len() == 1 => kind,
                    kind => format!("{kind} ({size_name} {})", size(site)),
                },
                Sharing::All => "all".to_string(),
                Sharing::Site => module,
                Sharing::Tied(_) => first(&compiled, &module)?.map_or(module, |pattern| format!("{pattern}.*")),
                Sharing::Groups(_) => first(&compiled, &module)?.ok_or_else(|| {
                    let message =
                        format!("site '{module}' is in no group; add a pattern that matches its name from the start");
                    AdapterError::bad_field("sharing", message)
                })?,
            };
            let slot = *by_name.entry(name.clone()).or_insert_with(|| {
                groups.push(Self::new(name, Vec::new(), groups.len()));
                groups.len() - 1
            });
            groups[slot].sites.push(site.clone());
        }
        for (pattern, _) in &compiled {
            if matches!(sharing, Sharing::Groups(_)) && !by_name.contains_key(pattern) {
                let names = sites.iter().map(|site| kind(&site.module()));
                return Err(AdapterError::NoMatch {
                    field: "sharing",
                    pattern: pattern.clone(),
                    nearest: nearest_names(names, pattern),
                });
            }
        }
        Ok(groups)
    }

    fn new(name: String, sites: Vec<Site>, index: usize) -> Self {
        Self {
            name,
            sites,
            index,
            rank: 0,
            scale: 1.0,
            scales: Vec::new(),
        }
    }

    /// This group as [`Method::bind`](crate::Method::bind) gets it for the site `member`: the whole group, or, where scales
    /// differ, that site alone with its scale.
    pub(crate) fn bound_at(&self, member: usize) -> Self {
        match self.scales.get(member) {
            None => self.clone(),
            Some(scale) => Self {
                sites: vec![self.sites[member].clone()],
                scale: *scale,
                scales: Vec::new(),
                ..self.clone()
            },
        }
    }

    /// The first site.
    pub fn site(&self) -> &Site {
        &self.sites[0]
    }

    /// Module path of the first site, under which the group is stored.
    pub fn module(&self) -> String {
        self.site().module()
    }

    /// Checks that all sites have the same size, such as d_in.
    ///
    /// # Errors
    /// The first site that differs.
    pub fn check_equal(&self, size: &'static str, of: impl Fn(&Site) -> usize) -> Result<(), AdapterError> {
        let first = of(self.site());
        match self.sites.iter().find(|site| of(site) != first) {
            None => Ok(()),
            Some(site) => Err(self.unequal(size, first, site, of(site))),
        }
    }

    /// Checks that the rank is at least 1 and at most the size `of` every site.
    ///
    /// # Errors
    /// A rank that is 0 or too large.
    pub fn check_rank(&self, of: impl Fn(&Site) -> usize) -> Result<(), AdapterError> {
        let bad = |site: &&Site| self.rank == 0 || self.rank > of(site);
        match self.sites.iter().find(bad) {
            None => Ok(()),
            Some(site) => Err(AdapterError::BadRank {
                rank: self.rank,
                site: site.path.clone(),
                d_in: site.d_in,
                d_out: site.d_out,
                max: of(site),
            }),
        }
    }

    pub(crate) fn unequal(&self, size: &'static str, first: usize, site: &Site, other: usize) -> AdapterError {
        AdapterError::Unequal {
            group: self.name.clone(),
            size,
            first: self.module(),
            first_size: first,
            site: site.module(),
            site_size: other,
        }
    }
}

/// Each pattern and its regular expression for whole names, in which `rest` follows what the pattern matches.
fn compiled(patterns: &[String], rest: &str) -> Result<Vec<(String, Regex)>, AdapterError> {
    let texts: Vec<&str> = patterns.iter().map(String::as_str).collect();
    Ok(patterns.iter().cloned().zip(regexes(&texts, "", rest)?).collect())
}

/// The first pattern that matches `module`.
fn first(compiled: &[(String, Regex)], module: &str) -> Result<Option<String>, AdapterError> {
    for (pattern, regex) in compiled {
        if regex.matches(module)? {
            return Ok(Some(pattern.clone()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_groups_may_take_so_much_memory_together() {
        let shared = |count: usize| {
            let pattern = |number: usize| format!(r"(?!x)\w{{50}}z{number}|q");
            let sharing = Sharing::Groups((0..count).map(pattern).collect());
            Group::shared(&[Site::linear("q", 8, 8)], &sharing, "d_in", |site| site.d_in)
        };
        assert_eq!(shared(1).unwrap().len(), 1);
        let error = shared(1000).unwrap_err().to_string();
        assert!(error.contains("the 999 other patterns"), "{error}");
    }
}
