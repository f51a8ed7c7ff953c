//! The fields and layout of the WeGeFT fork of PEFT. They are read, and written whenever they can describe the adapter: the fork
//! cannot read files with fields that it does not know.
//!
//! | fork | here |
//! | --- | --- |
//! | `wegeft_alpha` | `alpha` |
//! | `wegeft_dropout` (on the elements of W) | `weight_dropout` |
//! | `transform_dim`: `"input"`, `"output"`, or one of them per module | `side` |
//! | `tied_modules`: lists of patterns, matched from the start of a name; modules that none matches are not tied | `sharing` |
//! | `init_wegeft_weights`: phi = 0 | `zero_factor = "phi"` |

use std::sync::Arc;

use serde::de::Error;
use serde_json::{Map, Value, json};

use super::wegeft_settings::{Side, WegeftConfig, ZeroFactor};
use crate::checkpoint::{Names, Tensors};
use crate::group::{Group, Sharing};
use crate::method::{self, Method};
use crate::site::{kind, name_matches};
use crate::targets::{TargetModules, Targets};

const FIELDS: [&str; 5] = [
    "wegeft_alpha",
    "wegeft_dropout",
    "transform_dim",
    "tied_modules",
    "init_wegeft_weights",
];
/// The fork's name of the method.
const PEFT_TYPE: &str = "WeGeFT";
/// End of the patterns that are written for groups of [`Sharing::Kind`].
const KIND_END: &str = "$";
/// End of the patterns that are written for groups of [`Sharing::Groups`].
const GROUP_END: &str = r"(?:\..*)?$";

/// The fork's fields at their defaults, and fields that have no effect here.
fn unset() -> [(&'static str, Value); 8] {
    [
        ("auto_mapping", Value::Null),
        ("base_model_name_or_path", Value::Null),
        ("bias", json!("none")),
        ("fan_in_fan_out", json!(false)),
        ("inference_mode", json!(true)),
        ("layers_pattern", Value::Null),
        ("revision", Value::Null),
        ("task_type", Value::Null),
    ]
}

/// Reads WeGeFT's settings and translates the fork's fields. Our own fields take precedence.
///
/// # Errors
/// A field that is missing, has a wrong type, or has no counterpart here.
pub(super) fn read(fields: &mut Map<String, Value>) -> serde_json::Result<Arc<dyn Method>> {
    translate(fields).map_err(serde_json::Error::custom)?;
    method::read::<WegeftConfig>(fields)
}

fn translate(fields: &mut Map<String, Value>) -> Result<(), String> {
    let found: Map<String, Value> = FIELDS
        .iter()
        .filter_map(|name| Some((name.to_string(), fields.shift_remove(*name)?)))
        .collect();
    if !found.contains_key("wegeft_alpha") {
        return Ok(());
    }
    // Written back when the adapter is saved.
    for (name, value) in unset() {
        if fields.get(name) == Some(&value) {
            fields.shift_remove(name);
        }
    }
    let mut ours = Map::new();
    ours.insert("alpha".into(), found["wegeft_alpha"].clone());
    if let Some(p) = found.get("wegeft_dropout").filter(|p| !p.is_null()) {
        ours.insert("weight_dropout".into(), p.clone());
    }
    ours.insert("side".into(), side(found.get("transform_dim"))?);
    let own = |field: &str| {
        fields
            .get(field)
            .and_then(Value::as_object)
            .is_some_and(|keys| !keys.is_empty())
    };
    // With rank or alpha patterns, sites are tied exactly as in the fork.
    let targets = match own("rank_pattern") || own("alpha_pattern") {
        true => Value::Null,
        false => fields.get("target_modules").cloned().unwrap_or_default(),
    };
    ours.insert("sharing".into(), json!(sharing(found.get("tied_modules"), &targets)?));
    ours.insert("zero_factor".into(), json!(ZeroFactor::Phi));
    for (name, value) in ours {
        fields.entry(name).or_insert(value);
    }
    Ok(())
}

fn side(value: Option<&Value>) -> Result<Value, String> {
    let one = match value {
        None | Some(Value::Null) => return Ok(json!(Side::Input)),
        Some(Value::Object(by_module)) => {
            let mut sides = by_module.values();
            let first = sides.next().cloned().unwrap_or(json!(Side::Input));
            if sides.any(|side| *side != first) {
                return Err(
                    "field 'transform_dim' mixes input and output, which is not supported within one adapter".into(),
                );
            }
            first
        }
        Some(value) => value.clone(),
    };
    match one.as_str() {
        Some("input" | "output") => Ok(one),
        _ => Err(format!("field 'transform_dim' is {one}; expected input or output")),
    }
}

fn sharing(value: Option<&Value>, targets: &Value) -> Result<Sharing, String> {
    let bad = |value: &Value| format!("field 'tied_modules' is {value}; expected a list of lists of patterns");
    let groups = match value {
        None | Some(Value::Null) if targets.is_null() => return Ok(Sharing::Tied(Vec::new())),
        None | Some(Value::Null) => return Ok(Sharing::Site),
        Some(value) => value.as_array().ok_or_else(|| bad(value))?,
    };
    let patterns = groups.iter().map(|group| {
        let parts = match group {
            Value::String(one) => vec![one.as_str()],
            Value::Array(many) => many
                .iter()
                .map(Value::as_str)
                .collect::<Option<_>>()
                .ok_or_else(|| bad(group))?,
            _ => return Err(bad(group)),
        };
        Ok(match parts[..] {
            [one] => one.to_string(),
            _ => format!("(?:{})", parts.join("|")),
        })
    });
    let patterns = patterns.collect::<Result<Vec<_>, _>>()?;
    if targets.is_null() {
        return Ok(Sharing::Tied(patterns));
    }
    if patterns.is_empty() {
        return Ok(Sharing::Site);
    }
    if patterns == [".*"] {
        return Ok(Sharing::All);
    }
    let own = |pattern: &String| pattern.strip_suffix(GROUP_END).map(String::from);
    if let Some(own) = patterns.iter().map(own).collect() {
        return Ok(Sharing::Groups(own));
    }
    Ok(match is_by_kind(&patterns, targets) {
        true => Sharing::Kind,
        false => Sharing::Tied(patterns),
    })
}

/// The pattern for the group of a kind: the module name with a wildcard for every layer number.
fn kind_pattern(kind: &str) -> String {
    format!("{}{KIND_END}", regex::escape(kind).replace(r"\*", r"\d+"))
}

/// True if these are the patterns that are written for [`Sharing::Kind`]: each for one kind, and one for every target.
fn is_by_kind(patterns: &[String], targets: &Value) -> bool {
    let kind = |pattern: &String| {
        let kind = pattern.strip_suffix(KIND_END)?.replace(r"\d+", "*").replace('\\', "");
        (kind_pattern(&kind) == *pattern).then_some(kind)
    };
    let Some(kinds) = patterns.iter().map(kind).collect::<Option<Vec<String>>>() else {
        return false;
    };
    let names = targets.as_array().map(Vec::as_slice).unwrap_or_default();
    let tied = |name: &Value| {
        let of_it = |name: &str| kinds.iter().any(|kind| name_matches(kind, name));
        name.as_str().is_some_and(of_it)
    };
    !names.is_empty() && names.iter().all(tied)
}

/// The config in the fork's own fields, if these can describe the adapter completely; otherwise `fields` unchanged.
pub(super) fn on_disk(
    wegeft: &WegeftConfig,
    fields: Map<String, Value>,
    targets: &Targets,
    groups: &[Group],
) -> Map<String, Value> {
    let TargetModules::Names(names) = &targets.target_modules else {
        return fields;
    };
    let is_plain = wegeft.generator.is_identity() && wegeft.dropout == 0.0 && wegeft.side == Side::Input;
    let starts_alike = wegeft.zero_factor == ZeroFactor::Phi;
    let selects_alike = targets.exclude_modules.is_empty()
        && targets.fused.is_empty()
        && targets.target_parameters.is_empty()
        && targets.trainable_token_indices.is_none();
    let scales_alike = || {
        let mut read = groups.to_vec();
        let resolved = wegeft
            .patterns
            .resolve_sites(&mut read, wegeft.r, wegeft.alpha, |r, alpha| alpha / r as f64);
        resolved.is_ok() && read == groups
    };
    if !(is_plain && starts_alike && selects_alike && (wegeft.patterns.is_empty() || scales_alike())) {
        return fields;
    }
    let pattern_of = |group: &Group| match group.name == kind(&group.module()) {
        true => kind_pattern(&group.name),
        // Only some modules of a kind: those of one size.
        false => {
            let names = group.sites.iter().map(|site| regex::escape(&site.module()));
            format!("(?:{}){KIND_END}", names.collect::<Vec<_>>().join("|"))
        }
    };
    let tied: Value = match &wegeft.sharing {
        Sharing::Site => Value::Null,
        Sharing::All => json!([[".*"]]),
        Sharing::Groups(patterns) => {
            let patterns = patterns.iter().map(|pattern| format!("{pattern}{GROUP_END}"));
            patterns.map(|pattern| json!([pattern])).collect()
        }
        Sharing::Tied(patterns) => patterns.iter().map(|pattern| json!([pattern])).collect(),
        Sharing::Kind => groups.iter().map(|group| json!([pattern_of(group)])).collect(),
    };
    let sides: Map<String, Value> = names.iter().map(|name| (name.clone(), json!(wegeft.side))).collect();
    let saved = &targets.modules_to_save;
    let or_null = |empty: bool, value: Value| if empty { Value::Null } else { value };
    let kept = unset().map(|(name, value)| (name.to_string(), fields.get(name).cloned().unwrap_or(value)));
    let mut all: Map<String, Value> = kept.into_iter().collect();
    let own = json!({
        "alpha_pattern": wegeft.patterns.alpha_pattern, "init_wegeft_weights": true,
        "layers_pattern": targets.layers_pattern, "layers_to_transform": targets.layers_to_transform,
        "modules_to_save": or_null(saved.is_empty(), json!(saved)), "peft_type": PEFT_TYPE, "r": wegeft.r,
        "rank_pattern": wegeft.patterns.rank_pattern, "target_modules": names, "tied_modules": tied,
        "transform_dim": sides, "wegeft_alpha": wegeft.alpha,
        "wegeft_dropout": or_null(wegeft.weight_dropout == 0.0, json!(wegeft.weight_dropout)),
    });
    all.extend(own.as_object().cloned().unwrap_or_default());
    all.sort_keys();
    all
}

/// Renames and transposes the factors of another library's file as [`Names`] expects: a key may lack `.weight`, and phi and psi
/// may be `[d, r]` instead of `[r, d]`. Square factors are read as the fork's.
pub(super) fn respell(names: &Names, tensors: &mut Tensors) {
    for (param, name) in names.values() {
        let Some(bare) = name.strip_suffix(".weight").filter(|name| name.contains(".wegeft_p")) else {
            continue;
        };
        if let Some(stored) = tensors.remove(bare) {
            tensors.entry(name.clone()).or_insert(stored);
        }
        let [d, r] = match param.path.ends_with(".phi") {
            true => [param.shape[0], param.shape[1]],
            false => [param.shape[1], param.shape[0]],
        };
        if let Some(stored) = tensors.get_mut(name).filter(|stored| d != r && stored.shape == [d, r]) {
            stored.values = (0..r)
                .flat_map(|column| (0..d).map(move |row| row * r + column))
                .map(|index| stored.values[index])
                .collect();
            stored.shape = vec![r, d];
        }
    }
}
