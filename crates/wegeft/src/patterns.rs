//! Patterns over module names, and the ranks and alphas that differ for some modules.

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::error::AdapterError;
use crate::group::Group;
use crate::json::null_as_default;
use crate::site::regex;

/// Ranks and alphas that differ from the method's for some modules, as in PEFT. A key is a module name, a name
/// ending or a regular expression for one; the first that matches counts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Patterns {
    /// Module -> rank.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Module -> alpha.
    #[serde(default, deserialize_with = "null_as_default")]
    pub alpha_pattern: BTreeMap<String, f64>,
}

impl Patterns {
    /// Sets rank and scale of every group: `r` and `alpha` where no pattern says otherwise, and the scale that `scale`
    /// makes of them. Each key is compiled once.
    ///
    /// # Errors
    /// A key that is no regular expression or matches no site, or a group whose sites get different ranks or alphas.
    pub fn resolve(
        &self,
        groups: &mut [Group],
        r: usize,
        alpha: f64,
        scale: impl Fn(usize, f64) -> f64,
    ) -> Result<(), AdapterError> {
        let mut ranks = Matched::new("rank_pattern", &self.rank_pattern)?;
        let mut alphas = Matched::new("alpha_pattern", &self.alpha_pattern)?;
        for group in groups.iter_mut() {
            let mut found: Option<(usize, f64)> = None;
            for site in &group.sites {
                let module = site.module();
                let own = (
                    ranks.of(&module).copied().unwrap_or(r),
                    alphas.of(&module).copied().unwrap_or(alpha),
                );
                let first = *found.get_or_insert(own);
                if first.0 != own.0 {
                    return Err(group.unequal("r", first.0, site, own.0));
                }
                if first.1 != own.1 {
                    let message = format!(
                        "gives '{}' and '{module}' of group '{}' the alphas {} and {}; the group has one",
                        group.module(),
                        group.name,
                        first.1,
                        own.1
                    );
                    return Err(AdapterError::bad_field("alpha_pattern", message));
                }
            }
            let (rank, alpha) = found.unwrap_or((r, alpha));
            group.rank = rank;
            group.scale = scale(rank, alpha);
        }
        ranks.check()?;
        alphas.check()
    }
}

/// Compiled keys of one pattern field, and which of them matched a site.
struct Matched<'a, V> {
    field: &'static str,
    keys: Vec<(&'a str, Key<'a>, &'a V, bool)>,
}

impl<'a, V> Matched<'a, V> {
    fn new(field: &'static str, values: &'a BTreeMap<String, V>) -> Result<Self, AdapterError> {
        let keys = values
            .iter()
            .map(|(key, value)| Ok((key.as_str(), Key::new(key)?, value, false)));
        Ok(Self {
            field,
            keys: keys.collect::<Result<_, AdapterError>>()?,
        })
    }

    /// The value of the first key that matches `module`.
    fn of(&mut self, module: &str) -> Option<&'a V> {
        let mut first = None;
        for (_, key, value, matched) in &mut self.keys {
            // A key counts as used even where an earlier one takes precedence.
            if (first.is_none() || !*matched) && key.matches(module) {
                *matched = true;
                first = first.or(Some(*value));
            }
        }
        first
    }

    fn check(&self) -> Result<(), AdapterError> {
        match self.keys.iter().find(|(_, _, _, matched)| !matched) {
            None => Ok(()),
            Some((key, ..)) => {
                let message = format!("'{key}' matches none of the adapted modules");
                Err(AdapterError::bad_field(self.field, message))
            }
        }
    }
}

/// A key of a pattern field: as in PEFT the whole module name, or its end after a dot.
enum Key<'a> {
    /// A name without special characters but dots, which stand for any character.
    Name(&'a str),
    Regex(Regex),
}

impl<'a> Key<'a> {
    fn new(key: &'a str) -> Result<Self, AdapterError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        match key.chars().all(plain) {
            true => Ok(Self::Name(key)),
            false => Ok(Self::Regex(regex(&format!(r"(?:.*\.)?(?:{key})"))?)),
        }
    }

    fn matches(&self, module: &str) -> bool {
        match self {
            Self::Name(name) => {
                let (name, module) = (name.as_bytes(), module.as_bytes());
                let Some(start) = module.len().checked_sub(name.len()) else {
                    return false;
                };
                let whole = start == 0 || module[start - 1] == b'.';
                whole && name.iter().zip(&module[start..]).all(|(a, b)| *a == b'.' || a == b)
            }
            Self::Regex(regex) => regex.is_match(module),
        }
    }
}
