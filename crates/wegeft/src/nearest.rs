//! The names in a model that are most similar to one that it does not have.

use crate::site::{ParamInfo, kind};

/// Names that model families give to the same layer.
const SYNONYMS: [&[&str]; 8] = [
    &["q_proj", "query", "q", "wq", "q_lin"],
    &["k_proj", "key", "k", "wk", "k_lin"],
    &["v_proj", "value", "v", "wv", "v_lin"],
    &[
        "o_proj", "out_proj", "proj", "output", "wo", "out_lin", "c_proj", "dense",
    ],
    &["qkv", "qkv_proj", "c_attn", "query_key_value", "in_proj"],
    &["gate_proj", "w1"],
    &[
        "up_proj",
        "w3",
        "fc1",
        "c_fc",
        "lin1",
        "linear1",
        "linear_inner",
        "intermediate",
    ],
    &["down_proj", "w2", "fc2", "lin2", "linear2", "linear_outer"],
];

/// The three names most similar to `pattern`, as targets are written: the end of a module's path, followed by the full path
/// with a star for the layer number.
pub(crate) fn nearest(candidates: &[&ParamInfo], pattern: &str) -> String {
    nearest_names(candidates.iter().map(|param| kind(param.name())), pattern)
}

/// [`nearest`] among `names` of modules, with stars for the layer numbers.
pub(crate) fn nearest_names(names: impl Iterator<Item = String>, pattern: &str) -> String {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names.sort_by(|a, b| likeness(b, pattern).total_cmp(&likeness(a, pattern)));
    names.truncate(3);
    let shown: Vec<String> = names.iter().map(|name| shown(name)).collect();
    shown.join(", ")
}

/// `mlp.fc1 (in blocks.*.mlp.fc1)`: what to write, and where it is.
fn shown(name: &str) -> String {
    match tail(name) {
        tail if tail.is_empty() || tail == name => name.to_string(),
        tail => format!("{tail} (in {name})"),
    }
}

/// What follows the number of the last layer.
fn tail(name: &str) -> &str {
    let tail = name.rsplit('*').next().unwrap_or(name);
    tail.trim_start_matches('.')
}

fn likeness(name: &str, pattern: &str) -> f64 {
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_string();
    let (own, wanted) = (last(name), last(pattern));
    let same = |names: &[&str]| names.contains(&own.as_str()) && names.contains(&wanted.as_str());
    if SYNONYMS.iter().any(|names| same(names)) {
        return 2.0;
    }
    let whole = strsim::jaro_winkler(tail(name), tail(pattern));
    whole.max(strsim::jaro_winkler(&own, &wanted))
}
