//! A start that PEFT draws anew each time it loads an adapter.

use serde_json::{Map, Value};

/// A warning for the fields of adapter_config.json, if PEFT wrote them and the adapter started from a decomposition that
/// PEFT draws at random: what was taken from the frozen weights for it is then known nearly, not exactly.
pub fn warning(fields: &Map<String, Value>) -> Option<String> {
    let init = fields.get("init_lora_weights").and_then(Value::as_str)?;
    // Adapters of this library start the same way each time. Only PEFT writes `auto_mapping`.
    let of_peft = fields.contains_key("auto_mapping");
    (of_peft && init.starts_with("pissa_niter_")).then(|| {
        format!(
            "init_lora_weights is '{init}', a start that PEFT draws anew each time it loads the adapter, so that results \
             differ slightly from those of training, there as here; to fix them, save it in PEFT with \
             save_pretrained(FOLDER, path_initial_model_for_weight_conversion=INITIAL), where INITIAL is the adapter as it \
             was saved before training"
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_drawn_start_of_peft_is_named() {
        let of = |fields: Value| warning(fields.as_object().unwrap());
        let drawn = of(json!({"init_lora_weights": "pissa_niter_4", "auto_mapping": null})).unwrap();
        assert!(
            drawn.contains("pissa_niter_4") && drawn.contains("path_initial_model_for_weight_conversion"),
            "{drawn}"
        );
        for known in [
            json!({"init_lora_weights": "pissa_niter_4"}),
            json!({"init_lora_weights": "pissa", "auto_mapping": null}),
            json!({"init_lora_weights": true, "auto_mapping": null}),
            json!({"auto_mapping": null}),
        ] {
            assert_eq!(of(known.clone()), None, "{known}");
        }
    }
}
