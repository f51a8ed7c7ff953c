//! Writing a classifier as a Hugging Face folder: config.json and model.safetensors.

use std::path::Path;

use serde_json::{Value, json};
use wegeft::AdapterError;

use super::model::SequenceClassifier;
use crate::encoder;
use crate::lm::export::save;
use crate::lm::{Family, Precision};

/// Writes `model` and its config.json into `folder`, creating it if needed, so that transformers can load it with
/// `AutoModelForSequenceClassification`. `config` is the config.json that the model was loaded with; labels and
/// architecture are written into it.
///
/// # Errors
/// A folder or file that cannot be written.
pub fn save_classifier(
    model: &SequenceClassifier,
    config: &Value,
    folder: &Path,
    precision: Precision,
) -> Result<(), AdapterError> {
    let mut fields = config.as_object().cloned().unwrap_or_default();
    model.labels().write(&mut fields);
    let kind = fields.get("model_type").and_then(Value::as_str).unwrap_or_default();
    fields.insert("architectures".into(), json!([architecture(kind)]));
    // What else older files say of the type of the weights would be wrong now.
    fields.shift_remove("torch_dtype");
    fields.insert("dtype".into(), precision.torch_name().into());
    let decoder = model.decoder();
    let conv1d = decoder.is_some_and(|decoder| Family::of(decoder.config()).conv1d);
    let text = serde_json::to_string_pretty(&fields).unwrap_or_default();
    save(model, conv1d, &text, folder, precision)
}

/// The class that transformers has for a model with a head for sequences.
fn architecture(model_type: &str) -> String {
    if let Some(family) = encoder::family(model_type) {
        let named = family.model_types.iter().find(|(name, _)| *name == model_type);
        return named.map_or_else(String::new, |(_, class)| (*class).to_string());
    }
    let stem = match model_type {
        "llama" => "Llama",
        "mistral" => "Mistral",
        "qwen2" => "Qwen2",
        "qwen3" => "Qwen3",
        "smollm3" => "SmolLM3",
        "gemma2" => "Gemma2",
        "gemma3" => "Gemma3",
        "gemma3_text" => "Gemma3Text",
        "phi3" => "Phi3",
        "gpt2" => "GPT2",
        other => other,
    };
    format!("{stem}ForSequenceClassification")
}
