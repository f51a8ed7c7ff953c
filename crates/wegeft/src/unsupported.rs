//! Fields of PEFT's adapter_config.json that change what an adapter computes and are not implemented here: if set, they are
//! refused by name instead of ignored.

use serde_json::{Map, Value};

use crate::error::AdapterError;

/// Fields that have no effect while they are null, false, empty, zero or "none". Not listed: `fan_in_fan_out`, which PEFT sets
/// for GPT-2 and which describes the backbone's file; and `eva_config`, which only affects how factors are initialized.
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

/// The first field of `config` that is set and not implemented, and what it is set to.
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

/// True for the settings with which PEFT trains biases: all biases, or, with `lora_only` and the like, those of adapted layers.
/// Such biases are loaded from a file but not trained here.
fn trains_biases(bias: &Value) -> bool {
    bias.as_str()
        .is_some_and(|bias| bias == "all" || bias.ends_with("_only"))
}

/// Refuses fields in `extra` that only a loaded adapter may have.
pub(crate) fn check_fresh(extra: &Map<String, Value>) -> Result<(), AdapterError> {
    match extra.get(BIAS).filter(|bias| trains_biases(bias)) {
        None => Ok(()),
        Some(bias) => {
            let message = format!("training biases ({bias}) is not implemented; leave it unset, or use BitFit");
            Err(AdapterError::bad_field(BIAS, message))
        }
    }
}

/// True for one of these fields.
pub(crate) fn knows(field: &str) -> bool {
    FIELDS.contains(&field)
}

pub(crate) fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !matches!(text.as_str(), "" | "none"),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}
