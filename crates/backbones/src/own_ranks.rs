//! Ranks and alphas of single modules, as PEFT's `rank_pattern` and `alpha_pattern` give them to modules by names that are
//! not this crate's.

use serde_json::{Map, Value};
use wegeft::{AdapterError, Group, Patterns, Site};

/// The fields that hold them.
pub(crate) const FIELDS: [&str; 2] = ["rank_pattern", "alpha_pattern"];

/// The patterns of an adapter_config.json. AdaLoRA's lists, by the names of tensors, are left out.
///
/// # Errors
/// A value that is not a rank or an alpha.
pub(crate) fn patterns(fields: &Map<String, Value>) -> Result<Patterns, serde_json::Error> {
    let mut given = Map::new();
    for field in FIELDS {
        if let Some(Value::Object(all)) = fields.get(field) {
            let own = all.iter().filter(|(_, value)| !value.is_array());
            let own: Map<String, Value> = own.map(|(name, value)| (name.clone(), value.clone())).collect();
            given.insert(field.into(), Value::Object(own));
        }
    }
    serde_json::from_value(Value::Object(given))
}

/// A rank and an alpha.
type Own = (Option<usize>, Option<f64>);

/// Rank and alpha of each of `modules`, by the first pattern that fits it; `None` where none does.
///
/// # Errors
/// A pattern that is not a valid regular expression.
pub(crate) fn of(patterns: &Patterns, modules: &[String]) -> Result<Vec<Own>, AdapterError> {
    let sites: Vec<Site> = modules.iter().map(|module| Site::linear(module, 1, 1)).collect();
    let mut groups = Group::each(&sites);
    // Stand for: no pattern matched.
    let (no_rank, no_alpha) = (usize::MAX, f64::INFINITY);
    patterns.resolve(&mut groups, no_rank, no_alpha, |_, alpha| alpha)?;
    let own = |group: &Group| {
        let rank = Some(group.rank).filter(|rank| *rank != no_rank);
        (rank, Some(group.scale).filter(|alpha| *alpha < no_alpha))
    };
    Ok(groups.iter().map(own).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_pattern_that_fits_counts() {
        let fields = json!({
            "rank_pattern": {"q_proj": 3, r"layers\.[01]\..*": 5, "a.lora_E": [true, false]},
            "alpha_pattern": {"^vit.*v_proj": 2, "(?!x)k_proj": 7.5}
        });
        let patterns = patterns(fields.as_object().unwrap()).unwrap();
        let modules = ["vit.layers.0.q_proj", "vit.layers.1.v_proj", "vit.layers.2.k_proj", "a"].map(String::from);
        assert_eq!(
            of(&patterns, &modules).unwrap(),
            [(Some(3), None), (Some(5), Some(2.0)), (None, Some(7.5)), (None, None)]
        );
    }

    #[test]
    fn what_is_no_rank_or_alpha_is_refused() {
        for wrong in [
            json!({"rank_pattern": {"a": 1.5}}),
            json!({"alpha_pattern": {"a": "b"}}),
        ] {
            assert!(patterns(wrong.as_object().unwrap()).is_err(), "{wrong}");
        }
    }
}
