//! The fields and the layout of the WeGeFT fork of PEFT: read into ours, and written beside ours.
//!
//! | fork | here |
//! | --- | --- |
//! | `wegeft_alpha` | `alpha` |
//! | `wegeft_dropout` (on the elements of W) | `weight_dropout` |
//! | `transform_dim`: `"input"`, `"output"`, or one of them a module | `side` |
//! | `tied_modules`: lists of patterns from the start of a name; none ties nothing | `sharing` |
//! | `init_wegeft_weights`: phi = 0 | `zero_factor = "phi"` |

use std::sync::Arc;

use serde::de::Error;
use serde_json::{Map, Value, json};

use super::wegeft::{Side, WegeftConfig, ZeroFactor};
use crate::checkpoint::{Names, Tensors};
use crate::group::{Group, Sharing};
use crate::method::{self, Method};
use crate::site::kind;

const FIELDS: [&str; 5] = [
    "wegeft_alpha",
    "wegeft_dropout",
    "transform_dim",
    "tied_modules",
    "init_wegeft_weights",
];

/// Reads WeGeFT's settings, with the fork's fields turned into ours. A file with our own field keeps that one.
///
/// # Errors
/// A field that is missing, of a wrong type, or that has no counterpart here.
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
    let mut ours = Map::new();
    ours.insert("alpha".into(), found["wegeft_alpha"].clone());
    if let Some(p) = found.get("wegeft_dropout").filter(|p| !p.is_null()) {
        ours.insert("weight_dropout".into(), p.clone());
    }
    ours.insert("side".into(), side(found.get("transform_dim"))?);
    ours.insert("sharing".into(), sharing(found.get("tied_modules"))?);
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
                return Err("field 'transform_dim' mixes input and output, which one adapter cannot here".into());
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

fn sharing(value: Option<&Value>) -> Result<Value, String> {
    let bad = |value: &Value| format!("field 'tied_modules' is {value}; expected a list of lists of patterns");
    let groups = match value {
        None | Some(Value::Null) => return Ok(json!(Sharing::Site)),
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
        // The fork's patterns need not reach to the end of a name.
        Ok(format!("(?:{}).*", parts.join("|")))
    });
    let patterns = patterns.collect::<Result<Vec<_>, _>>()?;
    Ok(match patterns.is_empty() {
        true => json!(Sharing::Site),
        false => json!(Sharing::Groups(patterns)),
    })
}

/// The fork's fields of a WeGeFT adapter, so that it can read what we write; nothing for generators,
/// which it does not have.
pub(super) fn fields(wegeft: &WegeftConfig, groups: &[Group]) -> Map<String, Value> {
    if !wegeft.generator.is_identity() {
        return Map::new();
    }
    let tied: Value = match &wegeft.sharing {
        Sharing::Site => Value::Null,
        Sharing::All => json!([[".*"]]),
        Sharing::Groups(patterns) => patterns.iter().map(|pattern| json!([pattern])).collect(),
        // The name of such a group is its modules' with every layer number replaced by a star.
        Sharing::Kind => {
            let exact = |group: &Group| {
                let names = group.sites.iter().map(|site| regex::escape(&site.module()));
                format!("(?:{})$", names.collect::<Vec<_>>().join("|"))
            };
            let whole = |group: &Group| group.name == kind(&group.module());
            let pattern = |group: &Group| match whole(group) {
                true => format!("{}$", regex::escape(&group.name).replace(r"\*", r"\d+")),
                // Only some modules of a kind, those of one size.
                false => exact(group),
            };
            groups.iter().map(|group| json!([pattern(group)])).collect()
        }
    };
    let fields = json!({
        "wegeft_alpha": wegeft.alpha, "wegeft_dropout": wegeft.weight_dropout, "transform_dim": wegeft.side,
        "tied_modules": tied, "init_wegeft_weights": true,
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Gives factors of a foreign file the names and the orientation that [`Names`] expects: a name may lack `.weight`, and
/// phi and psi may be `[d, r]` instead of `[r, d]`. Square ones are taken as the fork's.
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
