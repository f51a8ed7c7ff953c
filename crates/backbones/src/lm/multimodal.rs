//! Adapters that PEFT trained on a model with images, of which the text model here is a part: other names for its modules, and
//! tensors of the parts for images.

use std::collections::BTreeSet;

use serde_json::Value;
use wegeft::storage::{PREFIX, Tensors};
use wegeft::{AdapterError, AdapterFiles, TargetModules, Targets, site};

use super::decoder::Decoder;

/// Module path of the head.
pub(super) const HEAD: &str = "lm_head";

/// What stands before the names in the text model, and the same of the text model by itself.
type Names = [(&'static str, &'static str); 2];

const WRAPPERS: [Names; 2] = [
    [("model.language_model.", "model."), (HEAD, HEAD)],
    // Before transformers 4.52.
    [("language_model.model.", "model."), ("language_model.lm_head", HEAD)],
];
/// Part of a name that only modules in such a model have.
const PART: &str = "language_model";

/// `files` with the names of `model`, without tensors of the parts for images, and a warning about those.
pub(super) fn of_text(files: AdapterFiles, model: &Decoder) -> Result<(AdapterFiles, Option<String>), AdapterError> {
    let Some(names) = wrapper(files.tensors()) else {
        return Ok((files, None));
    };
    let left_out: Vec<String> = files
        .tensors()
        .keys()
        .filter(|key| key.strip_prefix(PREFIX).is_some_and(|name| own(names, name).is_none()))
        .cloned()
        .collect();
    let warning = left_out.first().map(|first| {
        let count = left_out.len();
        format!("{count} tensors of parts for images are left out, which a text does not need: '{first}' and so on")
    });
    let mut files = files.without(&left_out);
    for field in ["target_modules", "exclude_modules"] {
        let found = files.fields().get(field).map(|value| listed(value, names, model));
        if let Some(listed) = found.transpose()?.flatten() {
            files = files.with_field(field, listed.into());
        }
    }
    let files = files.renamed(|name| own(names, name).unwrap_or_else(|| name.to_string()));
    Ok((files, warning))
}

/// The names by which the tensors of a text model within another are called, if these are such.
fn wrapper(tensors: &Tensors) -> Option<&'static Names> {
    let of = |names: &Names, key: &String| {
        key.strip_prefix(PREFIX)
            .is_some_and(|name| name.starts_with(names[0].0))
    };
    WRAPPERS.iter().find(|names| tensors.keys().any(|key| of(names, key)))
}

/// `name` as the text model by itself has it; `None` for a name outside of it.
fn own(names: &Names, name: &str) -> Option<String> {
    let mut pairs = names.iter();
    pairs.find_map(|(wrapped, own)| Some(format!("{own}{}", name.strip_prefix(wrapped)?)))
}

/// The modules of `model` that `value`, names or a pattern, names in the model with images; `None` if it names the same ones
/// here.
fn listed(value: &Value, names: &Names, model: &Decoder) -> Result<Option<Vec<String>>, AdapterError> {
    let targets = match value {
        Value::String(pattern) if !pattern.eq_ignore_ascii_case("all-linear") => TargetModules::Regex(pattern.clone()),
        Value::Array(list) => {
            let list: Vec<String> = list.iter().filter_map(Value::as_str).map(String::from).collect();
            if !list.iter().any(|name| name.contains(PART)) {
                return Ok(None);
            }
            TargetModules::Names(list)
        }
        _ => return Ok(None),
    };
    let targets = Targets {
        target_modules: targets,
        ..Targets::default()
    };
    let modules: BTreeSet<String> = site::params(model)
        .iter()
        .map(|param| param.name().to_string())
        .collect();
    let mut listed = Vec::new();
    for module in modules {
        let mut pairs = names.iter();
        let wrapped = pairs.find_map(|(wrapped, own)| Some(format!("{wrapped}{}", module.strip_prefix(own)?)));
        if targets.names(wrapped.as_ref().unwrap_or(&module))? {
            listed.push(module);
        }
    }
    Ok(Some(listed))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::Device;
    use serde_json::json;
    use wegeft::AdapterConfig;
    use wegeft::storage::Stored;

    use super::*;
    use crate::lm::adapter::attach;
    use crate::lm::{LoadOptions, load_lm};

    fn gemma() -> Decoder {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lm/gemma3");
        load_lm(&folder, &LoadOptions::default(), &Device::flex())
            .unwrap()
            .model
    }

    #[test]
    fn an_adapter_of_a_model_with_images_acts_on_its_text_model() {
        let config = AdapterConfig::lora(2).with_target_modules(["q_proj", "v_proj"]);
        let plain = config.init(gemma()).unwrap().files();
        for (names, pattern) in WRAPPERS.iter().zip([
            r"model\.language_model\.layers\.\d+\.self_attn\.(q|v)_proj",
            r".*language_model.*\.(q_proj|v_proj)",
        ]) {
            let wrapped = plain.clone().renamed(|name| match name.strip_prefix(names[0].1) {
                Some(rest) => format!("{}{rest}", names[0].0),
                None => name.to_string(),
            });
            assert!(wrapped.tensors().keys().all(|key| key.contains(PART)));
            let full: Vec<String> = wrapped
                .tensors()
                .keys()
                .filter_map(|key| key.strip_prefix(PREFIX)?.strip_suffix(".lora_A.weight"))
                .map(String::from)
                .collect();
            for targets in [json!(["q_proj", "v_proj"]), json!(pattern), json!(full)] {
                let files = wrapped.clone().with_field("target_modules", targets.clone());
                let adapted = attach(gemma(), files).unwrap();
                assert_eq!(adapted.files().tensors(), plain.tensors(), "{targets}");
                assert!(adapted.warnings().is_empty(), "{:?}", adapted.warnings());
            }
            let of_images = Stored {
                shape: vec![1],
                values: vec![1.0],
            };
            let name = "vision_tower.encoder.layers.0.self_attn.q_proj.lora_A.weight";
            let adapted = attach(gemma(), wrapped.with_tensor(format!("{PREFIX}{name}"), of_images)).unwrap();
            assert_eq!(adapted.files().tensors(), plain.tensors());
            assert!(adapted.warnings()[0].contains(name), "{:?}", adapted.warnings());
        }
    }
}
