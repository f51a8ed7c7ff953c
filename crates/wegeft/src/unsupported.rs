//! Fields of PEFT's adapter_config.json that change what an adapter computes and that are not implemented here:
//! set, they are refused by name instead of ignored.

use serde_json::{Map, Value};

use crate::error::AdapterError;

/// Fields that mean nothing as long as they are null, false, empty, zero or "none". `fan_in_fan_out`, which PEFT sets by itself
/// for GPT-2, is none of them: it says how a file of the backbone keeps its weights, and whoever reads that knows it. Nor is
/// `eva_config`, which says how factors start.
const FIELDS: [&str; 9] = [
    "alora_invocation_tokens",
    "arrow_config",
    "bias",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "use_bdlora",
    "use_qalora",
    "velora_config",
];

/// The first field of `config` that asks for something not implemented, with its value.
pub(crate) fn first(config: &Map<String, Value>) -> Option<(&'static str, &Value)> {
    FIELDS
        .iter()
        .filter_map(|field| Some((*field, config.get(*field)?)))
        .find(|(field, value)| is_set(value) && !(*field == BIAS && trains_biases(value)) && !is_known(config, field))
}

/// True for what is implemented for LoRA and not for the methods whose configs extend LoRA's.
fn is_known(config: &Map<String, Value>, field: &str) -> bool {
    let method = config.get("peft_type").and_then(Value::as_str);
    field == "lora_bias" && method.is_some_and(|method| method.eq_ignore_ascii_case("LORA"))
}

const BIAS: &str = "bias";

/// True for the values with which PEFT trains biases: all, or with `lora_only` and the like those of adapted layers. They are
/// loaded from a file, and not trained here.
fn trains_biases(bias: &Value) -> bool {
    bias.as_str()
        .is_some_and(|bias| bias == "all" || bias.ends_with("_only"))
}

/// Refuses what only an adapter that is loaded may have in `extra`, the fields that say nothing of its function.
pub(crate) fn check_fresh(extra: &Map<String, Value>) -> Result<(), AdapterError> {
    match extra.get(BIAS).filter(|bias| trains_biases(bias)) {
        None => Ok(()),
        Some(bias) => {
            let message = format!("{bias} trains biases, which is not implemented here; leave it unset");
            Err(AdapterError::bad_field(BIAS, message))
        }
    }
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !matches!(text.as_str(), "" | "none"),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}
