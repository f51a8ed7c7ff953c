//! Fields of PEFT's adapter_config.json that change what an adapter computes and that are not implemented here:
//! set, they are refused by name instead of ignored.

use serde_json::{Map, Value};

/// Fields that mean nothing as long as they are null, false, empty, zero or "none".
const FIELDS: [&str; 11] = [
    "alora_invocation_tokens",
    "arrow_config",
    "bias",
    "eva_config",
    "fan_in_fan_out",
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
        .find(|(_, value)| is_set(value))
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
