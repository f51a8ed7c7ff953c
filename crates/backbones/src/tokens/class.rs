//! Which of transformers' tokenizer classes reads a folder, as AutoTokenizer of transformers 5.24 chooses it: some classes
//! do not take every step from tokenizer.json.

use serde_json::{Map, Value};

/// The classes of models, by `model_type`; "" for a model whose class takes every step from tokenizer.json, whatever class
/// its files name.
const OF_MODELS: [(&str, &str); 15] = [
    ("bert", "BertTokenizer"),
    ("deberta-v2", "DebertaV2Tokenizer"),
    ("distilbert", "BertTokenizer"),
    ("electra", "BertTokenizer"),
    ("gemma", "GemmaTokenizer"),
    ("gemma2", "GemmaTokenizer"),
    ("gemma3", "GemmaTokenizer"),
    ("gemma3_text", "GemmaTokenizer"),
    ("gpt2", "GPT2Tokenizer"),
    ("mistral", ""),
    ("modernbert", ""),
    ("phi3", ""),
    ("qwen2", QWEN2),
    ("qwen3", QWEN2),
    ("roberta", "RobertaTokenizer"),
];

/// A model of which transformers takes its own class whatever class its files name.
const ALWAYS_OWN: &str = "qwen2";

/// Names of the class without steps of its own, without "Fast".
const PLAIN: [&str; 3] = ["PreTrainedTokenizer", "PythonBackend", "TokenizersBackend"];

/// Other names of [`BERT`].
const BERT_TOO: [&str; 4] = [
    "ElectraTokenizer",
    "LayoutLMTokenizer",
    "MobileBertTokenizer",
    "SqueezeBertTokenizer",
];

pub(super) const BERT: &str = "BertTokenizer";
pub(super) const GEMMA: &str = "GemmaTokenizer";
pub(super) const LLAMA: &str = "LlamaTokenizer";
pub(super) const QWEN2: &str = "Qwen2Tokenizer";

/// A class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Class {
    /// One that may have steps of its own, by its name without "Fast".
    Named(String),
    /// The one that takes every step from tokenizer.json.
    Plain,
    /// The files name neither a class nor a model.
    Unknown,
}

impl Class {
    /// The class for tokenizer_config.json and config.json. `byte_level`: tokenizer.json has a step "ByteLevel".
    pub fn of(config: &Map<String, Value>, model: &Value, byte_level: bool) -> Self {
        let text = |field: Option<&Value>| field.and_then(Value::as_str).map(String::from);
        let kind = text(model.get("model_type")).unwrap_or_default();
        let of_model = OF_MODELS
            .iter()
            .find(|(name, _)| *name == kind)
            .map(|(_, class)| *class);
        let declared = text(config.get("tokenizer_class")).or_else(|| text(model.get("tokenizer_class")));
        let declared = declared.map(|name| name.strip_suffix("Fast").unwrap_or(&name).to_string());
        let own = |class: &str| match class {
            "" => Self::Plain,
            class => Self::Named(class.to_string()),
        };
        match (declared, of_model) {
            (_, Some("")) => Self::Plain,
            (_, Some(class)) if kind == ALWAYS_OWN => own(class),
            // Llama 3 and its like name the class of Llama 2.
            (Some(declared), _) if declared == LLAMA && byte_level => Self::Plain,
            (Some(declared), _) if PLAIN.contains(&declared.as_str()) => Self::Plain,
            (Some(declared), _) if BERT_TOO.contains(&declared.as_str()) => own(BERT),
            (Some(declared), _) => Self::Named(declared),
            (None, Some(class)) => own(class),
            (None, None) if kind.is_empty() => Self::Unknown,
            (None, None) => Self::Plain,
        }
    }

    /// The name of one that may have steps of its own.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Plain | Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(class: Option<&str>, kind: &str, byte_level: bool) -> Class {
        let config = class.map(|class| ("tokenizer_class".to_string(), json!(class)));
        Class::of(&config.into_iter().collect(), &json!({"model_type": kind}), byte_level)
    }

    /// As AutoTokenizer of transformers 5.24 chooses.
    #[test]
    fn a_class_is_the_named_one_or_that_of_the_model() {
        for (declared, kind, expected) in [
            (Some("LlamaTokenizer"), "llama", Some("LlamaTokenizer")),
            (Some("LlamaTokenizerFast"), "qwen3", Some("LlamaTokenizer")),
            (Some("LlamaTokenizerFast"), "", Some("LlamaTokenizer")),
            (Some("LlamaTokenizer"), "mistral", None),
            (Some("LlamaTokenizer"), "phi3", None),
            (Some("LlamaTokenizer"), "qwen2", Some("Qwen2Tokenizer")),
            (Some("PreTrainedTokenizerFast"), "gemma2", None),
            (Some("PreTrainedTokenizerFast"), "qwen2", Some("Qwen2Tokenizer")),
            (Some("ElectraTokenizerFast"), "electra", Some("BertTokenizer")),
            (Some("DistilBertTokenizer"), "distilbert", Some("DistilBertTokenizer")),
            (None, "gemma3_text", Some("GemmaTokenizer")),
            (None, "bert", Some("BertTokenizer")),
            (None, "llama", None),
            (None, "modernbert", None),
        ] {
            assert_eq!(of(declared, kind, false).name(), expected, "{declared:?} {kind}");
        }
        assert_eq!(of(Some("LlamaTokenizer"), "llama", true), Class::Plain);
        assert_eq!(of(Some("GemmaTokenizer"), "llama", true).name(), Some("GemmaTokenizer"));
        assert_eq!(of(None, "", false), Class::Unknown);
        // config.json may name the class.
        let model = json!({"model_type": "llama", "tokenizer_class": "GPT2Tokenizer"});
        assert_eq!(Class::of(&Map::new(), &model, true).name(), Some("GPT2Tokenizer"));
    }
}
