//! `rank_pattern` and `alpha_pattern`: ranks and alphas of their own for some modules.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use regex::{RegexSet, RegexSetBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::AdapterError;
use crate::expression::{Regex, regexes};
use crate::group::Group;
use crate::json::null_as_default;
pub use crate::ordered::Ordered;
use crate::pattern_size;
use crate::site::{kind, name_matches};

/// Ranks and alphas that differ from the method's for some modules, as in PEFT. A key is a module name, the end of one or a
/// regular expression; the first key that matches counts.
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
    /// Sets rank and scale of every group: `r` and `alpha` where no pattern matches, and the scale that `scale` computes
    /// from them. Each key is compiled once.
    ///
    /// # Errors
    /// A key that is not a valid regular expression, or a group whose sites get different ranks or alphas.
    pub fn resolve(
        &self,
        groups: &mut [Group],
        r: usize,
        alpha: f64,
        scale: impl Fn(usize, f64) -> f64,
    ) -> Result<(), AdapterError> {
        let (ranks, alphas) = (Matched::new(&self.rank_pattern)?, Matched::new(&self.alpha_pattern)?);
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
                        "gives '{}' and '{module}' of group '{}' the alphas {} and {}; a group needs one alpha",
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
        Ok(())
    }

    /// True if there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.rank_pattern.is_empty() && self.alpha_pattern.is_empty()
    }

    /// Sets ranks and scales as the WeGeFT fork of PEFT does: for each site one key is found, among those of
    /// `rank_pattern` and then those of `alpha_pattern`, and both are looked up under it. A group has the rank of its
    /// first site, whose factors all its sites use, and each site its own scale.
    ///
    /// # Errors
    /// A key that is not a valid regular expression.
    pub(crate) fn resolve_sites(
        &self,
        groups: &mut [Group],
        r: usize,
        alpha: f64,
        scale: impl Fn(usize, f64) -> f64,
    ) -> Result<(), AdapterError> {
        let names = self.rank_pattern.iter().map(|(name, _)| name);
        let names = names.chain(self.alpha_pattern.iter().map(|(name, _)| name));
        let keys: Ordered<()> = names.map(|name| (name.to_string(), ())).collect();
        let keys = Matched::new(&keys)?;
        for group in groups.iter_mut() {
            let mut own = Vec::new();
            for site in &group.sites {
                let key = keys.key_of_fork(&site.module())?.unwrap_or_default();
                let rank = self.rank_pattern.get(key).copied().unwrap_or(r);
                own.push((rank, scale(rank, self.alpha_pattern.get(key).copied().unwrap_or(alpha))));
            }
            (group.rank, group.scale) = own[0];
            let differ = own.iter().any(|(_, scale)| *scale != group.scale);
            group.scales = own.iter().filter(|_| differ).map(|(_, scale)| *scale).collect();
        }
        Ok(())
    }
}

/// What names none of `modules` in `fields`, a method's settings: keys that set ranks or alphas, and feed-forward layers;
/// by field.
///
/// # Errors
/// A key that is not a valid regular expression.
pub(crate) fn unmatched(
    fields: &Map<String, Value>,
    modules: &[String],
) -> Result<Vec<(&'static str, String)>, AdapterError> {
    let mut unmatched = Vec::new();
    let names_of = |field: &str| fields.get(field).and_then(Value::as_array).into_iter().flatten();
    for name in names_of("feedforward_modules").filter_map(Value::as_str) {
        if !modules.iter().any(|module| name_matches(module, name)) {
            unmatched.push(("feedforward_modules", name.to_string()));
        }
    }
    for field in ["rank_pattern", "alpha_pattern"] {
        let keys = fields.get(field).and_then(Value::as_object).into_iter().flatten();
        let keys: Ordered<()> = keys
            .filter(|(_, value)| value.is_number())
            .map(|(key, _)| (key.clone(), ()))
            .collect();
        let matched = Matched::new(&keys)?;
        let mut used = vec![false; matched.keys.len()];
        for module in modules {
            for index in matched.regexes.matches(module)? {
                used[matched.places[index]] = true;
            }
        }
        for (Key { text, is_name, .. }, used) in matched.keys.iter().zip(used) {
            if !(used || *is_name && modules.iter().any(|module| names(text, module))) {
                unmatched.push((field, text.to_string()));
            }
        }
    }
    Ok(unmatched)
}

/// `pattern` for modules that `rename` gives other names. One that is a name with escaped dots and `\d+` for each layer
/// number is renamed as that name in layer 0; any other is given to `rename` as it is.
pub(crate) fn renamed(pattern: &str, rename: &dyn Fn(&str) -> String) -> String {
    let (body, end) = match pattern.strip_suffix('$') {
        Some(body) => (body, "$"),
        None => (pattern, ""),
    };
    let escaped = |name: &str| regex::escape(&kind(name)).replace(r"\*", r"\d+");
    let name = body.replace(r"\d+", "0").replace(r"\.", ".");
    match body.contains('\\') && escaped(&name) == body {
        true => format!("{}{end}", escaped(&rename(&name))),
        false => rename(pattern),
    }
}

/// A key and its value.
struct Key<'a, V> {
    text: &'a str,
    value: &'a V,
    /// True for one without special characters but dots.
    is_name: bool,
}

/// Compiled keys of one pattern field.
struct Matched<'a, V> {
    keys: Vec<Key<'a, V>>,
    /// The keys that are regular expressions, and their places among `keys`.
    regexes: Arc<Regexes>,
    places: Vec<usize>,
}

impl<'a, V> Matched<'a, V> {
    fn new(values: &'a Ordered<V>) -> Result<Self, AdapterError> {
        let key = |(text, value): (&'a str, &'a V)| Key {
            text,
            value,
            is_name: is_name(text),
        };
        let keys: Vec<Key<V>> = values.iter().map(key).collect();
        let places: Vec<usize> = (0..keys.len()).filter(|place| !keys[*place].is_name).collect();
        let texts: Vec<&str> = places.iter().map(|place| keys[*place].text).collect();
        Ok(Self {
            regexes: Regexes::of(&texts)?,
            keys,
            places,
        })
    }

    /// The value of the first key that matches `module`.
    fn of(&self, module: &str) -> Result<Option<&'a V>, AdapterError> {
        let first = self.places_of(module)?.into_iter().min();
        Ok(first.map(|first| self.keys[first].value))
    }

    /// The first key that matches an end of `module` after a dot, or else the one that is `module`.
    fn key_of_fork(&self, module: &str) -> Result<Option<&'a str>, AdapterError> {
        let mut places = self.places_of(module)?;
        places.sort_unstable();
        let keys = || places.iter().map(|place| self.keys[*place].text);
        Ok(keys().find(|key| *key != module).or_else(|| keys().next()))
    }

    /// The places of the keys that match `module`, in no order.
    fn places_of(&self, module: &str) -> Result<Vec<usize>, AdapterError> {
        let named = |place: &usize| self.keys[*place].is_name && names(self.keys[*place].text, module);
        let names = (0..self.keys.len()).filter(named);
        let regexes = self.regexes.matches(module)?;
        let regexes = regexes.into_iter().map(|index| self.places[index]);
        Ok(names.chain(regexes).collect())
    }
}

/// Regular expressions of which several may match a name: as in PEFT the whole name, or its end after a dot.
struct Regexes {
    texts: Vec<String>,
    /// Those that are matched in one pass over the name, and their numbers.
    together: RegexSet,
    numbers: Vec<usize>,
    /// Those that have look-around or back-references, and their numbers.
    each: Vec<(usize, Regex)>,
}

thread_local! {
    /// What was compiled last: an adapter's ranks and alphas, which are also looked through for keys without a module.
    static LAST: RefCell<VecDeque<Arc<Regexes>>> = const { RefCell::new(VecDeque::new()) };
}

/// Number of pattern fields of an adapter.
const FIELDS: usize = 2;

impl Regexes {
    fn of(texts: &[&str]) -> Result<Arc<Self>, AdapterError> {
        let known = |last: &VecDeque<Arc<Self>>| last.iter().find(|known| known.texts == texts).cloned();
        if let Some(known) = LAST.with_borrow(known) {
            return Ok(known);
        }
        let compiled = Arc::new(Self::compiled(texts)?);
        LAST.with_borrow_mut(|last| {
            last.push_front(compiled.clone());
            last.truncate(FIELDS);
        });
        Ok(compiled)
    }

    fn compiled(texts: &[&str]) -> Result<Self, AdapterError> {
        pattern_size::check_length(texts)?;
        let plain = (0..texts.len()).filter(|number| !looks_around(texts[*number]));
        let mut numbers: Vec<usize> = plain.collect();
        let patterns = numbers
            .iter()
            .map(|number| format!(r"^(?:(?:.*\.)?(?:{}))$", texts[*number]));
        let together = RegexSetBuilder::new(patterns).size_limit(SIZE_LIMIT).build();
        let together = together.unwrap_or_else(|_| {
            // One by one, the one that is not a valid expression is found.
            numbers.clear();
            RegexSet::empty()
        });
        let rest: Vec<usize> = (0..texts.len())
            .filter(|number| numbers.binary_search(number).is_err())
            .collect();
        let texts_of_rest: Vec<&str> = rest.iter().map(|number| texts[*number]).collect();
        let each = regexes(&texts_of_rest, r"(?:.*\.)?", "")?;
        Ok(Self {
            each: rest.into_iter().zip(each).collect(),
            texts: texts.iter().map(ToString::to_string).collect(),
            together,
            numbers,
        })
    }

    /// The numbers of those that match, in no order.
    fn matches(&self, name: &str) -> Result<Vec<usize>, AdapterError> {
        let together = self.together.matches(name);
        let mut found: Vec<usize> = together.iter().map(|index| self.numbers[index]).collect();
        for (number, regex) in &self.each {
            if regex.matches(name)? {
                found.push(*number);
            }
        }
        Ok(found)
    }
}

/// True for a key with what a set of regular expressions cannot have.
fn looks_around(key: &str) -> bool {
    let digit = |(at, _): (usize, &str)| key[at + 1..].starts_with(|c: char| c.is_ascii_digit());
    ["(?=", "(?!", "(?<=", "(?<!", "(?>", "(?P="]
        .iter()
        .any(|start| key.contains(start))
        || key.match_indices('\\').any(digit)
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
    // Modules differ at their ends, more often than not.
    whole
        && bytes
            .iter()
            .zip(&module[start..])
            .rev()
            .all(|(a, b)| *a == b'.' || a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::COMPILED;
    use crate::site::Site;

    #[test]
    fn a_key_with_look_around_is_compiled_once() {
        let key = |layer: usize| (format!(r"layers\.(?!{layer}\b)\d+\.q"), 4);
        let patterns = Patterns {
            rank_pattern: (1..6).map(key).collect(),
            ..Patterns::default()
        };
        let mut groups = Group::each(&[Site::linear("layers.1.q", 8, 8), Site::linear("layers.2.k", 8, 8)]);
        let before = COMPILED.get();
        patterns.resolve(&mut groups, 2, 2.0, |_, alpha| alpha).unwrap();
        let Value::Object(fields) = serde_json::to_value(&patterns).unwrap() else {
            panic!("patterns are not an object")
        };
        let unused = unmatched(&fields, &["layers.1.q".to_string()]).unwrap();
        assert_eq!(COMPILED.get() - before, 5);
        assert_eq!([groups[0].rank, groups[1].rank], [4, 2]);
        assert_eq!(unused, [("rank_pattern", key(1).0)]);
    }

    #[test]
    fn an_error_shows_the_key_as_it_was_written() {
        let slow = r"(?:(a+)+)(?<=b)\1c";
        let patterns = Patterns {
            rank_pattern: [(slow.to_string(), 4)].into_iter().collect(),
            ..Patterns::default()
        };
        let mut groups = Group::each(&[Site::linear("a".repeat(60), 8, 8)]);
        let error = patterns.resolve(&mut groups, 2, 2.0, |_, alpha| alpha).unwrap_err();
        assert!(error.to_string().contains(&format!("'{slow}'")), "{error}");
    }
}
