//! Patterns over module names, and the ranks and alphas that differ for some modules.

use std::collections::BTreeMap;

use regex::{RegexSet, RegexSetBuilder};
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
    keys: Vec<(&'a str, &'a V)>,
    matched: Vec<bool>,
    /// The keys that are regular expressions, compiled together, and their places among `keys`.
    regexes: RegexSet,
    places: Vec<usize>,
}

impl<'a, V> Matched<'a, V> {
    fn new(field: &'static str, values: &'a BTreeMap<String, V>) -> Result<Self, AdapterError> {
        let keys: Vec<(&str, &V)> = values.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let places: Vec<usize> = (0..keys.len()).filter(|place| !is_name(keys[*place].0)).collect();
        // As in PEFT: the whole module name, or its end after a dot.
        let patterns = places
            .iter()
            .map(|place| format!(r"^(?:(?:.*\.)?(?:{}))$", keys[*place].0));
        let regexes = RegexSetBuilder::new(patterns).size_limit(SIZE_LIMIT).build();
        let regexes = regexes.map_err(|error| {
            // One of them alone tells which it is.
            let alone = places.iter().find_map(|place| regex(keys[*place].0).err());
            alone.unwrap_or_else(|| AdapterError::bad_field(field, error.to_string().replace('\n', " ")))
        })?;
        Ok(Self {
            field,
            matched: vec![false; keys.len()],
            keys,
            regexes,
            places,
        })
    }

    /// The value of the first key that matches `module`.
    fn of(&mut self, module: &str) -> Option<&'a V> {
        let names = (0..self.keys.len()).filter(|place| names(self.keys[*place].0, module));
        let regexes = self.regexes.matches(module);
        let regexes = regexes.iter().map(|index| self.places[index]);
        let found: Vec<usize> = names.chain(regexes).collect();
        // A key counts as used even where an earlier one takes precedence.
        for place in &found {
            self.matched[*place] = true;
        }
        found.into_iter().min().map(|first| self.keys[first].1)
    }

    fn check(&self) -> Result<(), AdapterError> {
        match self.matched.iter().position(|matched| !matched) {
            None => Ok(()),
            Some(place) => {
                let message = format!("'{}' matches none of the adapted modules", self.keys[place].0);
                Err(AdapterError::bad_field(self.field, message))
            }
        }
    }
}

/// Bytes that the compiled keys may take.
const SIZE_LIMIT: usize = 64 << 20;

/// True for a key without special characters but dots.
fn is_name(key: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    key.chars().all(plain)
}

/// True if `key`, a name whose dots stand for any character, is `module` or its end after a dot.
fn names(key: &str, module: &str) -> bool {
    let (bytes, module) = (key.as_bytes(), module.as_bytes());
    let Some(start) = module.len().checked_sub(bytes.len()) else {
        return false;
    };
    let whole = start == 0 || module[start - 1] == b'.';
    whole && is_name(key) && bytes.iter().zip(&module[start..]).all(|(a, b)| *a == b'.' || a == b)
}
