//! Fields of adapter_config.json whose names look like misspelled ones, and which therefore have no effect.

use serde_json::{Map, Value};

use crate::unsupported;

/// Fields of the targets that a config has only where they are set.
const OPTIONAL: [&str; 5] = [
    "layers_pattern",
    "target_parameters",
    "trainable_token_indices",
    "ensure_weight_tying",
    "fused",
];

/// Letters by which a misspelled name differs at most.
const DISTANCE: usize = 2;

/// A sentence for each field of `extra` that is set and whose name is nearly one of `known`, a method's own fields. PEFT has
/// many fields of no effect here, and with each version more: names that resemble none are taken for those.
pub(crate) fn warnings(extra: &Map<String, Value>, known: &Map<String, Value>) -> Vec<String> {
    let known: Vec<&str> = known.keys().map(String::as_str).chain(OPTIONAL).collect();
    let set = extra.iter().filter(|(_, value)| unsupported::is_set(value));
    let set = set.filter(|(name, _)| !known.contains(&name.as_str()) && !unsupported::knows(name));
    let meant = |name: &str| {
        let near = |known: &&&str| {
            let distance = strsim::damerau_levenshtein(known, name);
            distance <= DISTANCE && 2 * distance < known.len()
        };
        known.iter().find(near).copied()
    };
    set.filter_map(|(name, _)| meant(name).map(|known| (name, known)))
        .map(|(name, known)| {
            format!("adapter_config.json has a field '{name}', which has no effect; '{known}' may be meant")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_misspelled_field_is_told_and_peft_s_own_are_not() {
        let map = |value: Value| value.as_object().cloned().unwrap_or_default();
        let known = map(json!({"r": 4, "lora_alpha": 8, "use_dora": false, "target_modules": []}));
        let extra = json!({
            "lora_alhpa": 16, "target_module": ["q"], "layer_pattern": "h", "use_bdlora": null, "revision": "main",
            "megatron_core": "megatron.core", "peft_version": "0.21.0", "inference_mode": true, "task_type": "CAUSAL_LM",
        });
        let found = warnings(&map(extra), &known);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(
            found[0].contains("'lora_alhpa'") && found[0].contains("'lora_alpha'"),
            "{found:?}"
        );
    }
}
