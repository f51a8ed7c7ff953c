//! Patterns over module names, and the ranks and alphas that differ for some modules.

use std::fmt;
use std::marker::PhantomData;

use regex::{RegexSet, RegexSetBuilder};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::error::AdapterError;
use crate::group::Group;
use crate::json::null_as_default;
use crate::site::{Regex, regex};

/// Names with values, in the order of a file or of insertion.
#[derive(Debug, Clone, PartialEq)]
pub struct Ordered<V>(Vec<(String, V)>);

impl<V> Ordered<V> {
    /// Sets the value of `name`: in its place if it has one, at the end otherwise.
    pub fn insert(&mut self, name: String, value: V) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&V> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl<V> Default for Ordered<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> FromIterator<(String, V)> for Ordered<V> {
    fn from_iter<I: IntoIterator<Item = (String, V)>>(entries: I) -> Self {
        let mut all = Self::default();
        for (name, value) in entries {
            all.insert(name, value);
        }
        all
    }
}

impl<V: Serialize> Serialize for Ordered<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Ordered<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Ordered<V>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("names with values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<V>, A::Error> {
                let mut all = Ordered::default();
                while let Some((name, value)) = map.next_entry()? {
                    all.insert(name, value);
                }
                Ok(all)
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// Ranks and alphas that differ from the method's for some modules, as in PEFT. A key is a module name, a name
/// ending or a regular expression for one; the first in order that matches counts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Patterns {
    /// Module -> rank.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rank_pattern: Ordered<usize>,
    /// Module -> alpha.
    #[serde(default, deserialize_with = "null_as_default")]
    pub alpha_pattern: Ordered<f64>,
}

impl Patterns {
    /// Sets rank and scale of every group: `r` and `alpha` where no pattern says otherwise, and the scale that `scale`
    /// makes of them. Each key is compiled once.
    ///
    /// # Errors
    /// A key that is not a valid regular expression or matches no site, or a group whose sites get different ranks or alphas.
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
                    ranks.of(&module)?.copied().unwrap_or(r),
                    alphas.of(&module)?.copied().unwrap_or(alpha),
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
    /// The keys that are regular expressions, and their places among `keys`.
    regexes: Regexes,
    places: Vec<usize>,
}

impl<'a, V> Matched<'a, V> {
    fn new(field: &'static str, values: &'a Ordered<V>) -> Result<Self, AdapterError> {
        let keys: Vec<(&str, &V)> = values.iter().collect();
        let places: Vec<usize> = (0..keys.len()).filter(|place| !is_name(keys[*place].0)).collect();
        // As in PEFT: the whole module name, or its end after a dot.
        let patterns = places
            .iter()
            .map(|place| format!(r"^(?:(?:.*\.)?(?:{}))$", keys[*place].0));
        let regexes = match RegexSetBuilder::new(patterns).size_limit(SIZE_LIMIT).build() {
            Ok(set) => Regexes::Together(set),
            // One has look-around, or is none.
            Err(_) => {
                let each = places.iter().map(|place| {
                    let key = keys[*place].0;
                    regex(key)?;
                    regex(&format!(r"(?:.*\.)?(?:{key})"))
                });
                Regexes::Each(each.collect::<Result<_, AdapterError>>()?)
            }
        };
        Ok(Self {
            field,
            matched: vec![false; keys.len()],
            keys,
            regexes,
            places,
        })
    }

    /// The value of the first key that matches `module`.
    fn of(&mut self, module: &str) -> Result<Option<&'a V>, AdapterError> {
        let names = (0..self.keys.len()).filter(|place| names(self.keys[*place].0, module));
        let regexes = self.regexes.matches(module)?;
        let regexes = regexes.into_iter().map(|index| self.places[index]);
        let found: Vec<usize> = names.chain(regexes).collect();
        // A key counts as used even where an earlier one takes precedence.
        for place in &found {
            self.matched[*place] = true;
        }
        Ok(found.into_iter().min().map(|first| self.keys[first].1))
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

/// Regular expressions of which several may match a name.
enum Regexes {
    /// In one pass over the name.
    Together(RegexSet),
    /// One by one, where one of them has look-around.
    Each(Vec<Regex>),
}

impl Regexes {
    /// The numbers of those that match.
    fn matches(&self, name: &str) -> Result<Vec<usize>, AdapterError> {
        match self {
            Self::Together(set) => Ok(set.matches(name).iter().collect()),
            Self::Each(each) => {
                let mut found = Vec::new();
                for (index, regex) in each.iter().enumerate() {
                    if regex.matches(name)? {
                        found.push(index);
                    }
                }
                Ok(found)
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
