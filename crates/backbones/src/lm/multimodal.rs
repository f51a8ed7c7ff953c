//! Adapters that PEFT trained on a model with images, of which the text model here is a part: other names for its modules,
//! and tensors of the parts for images.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use wegeft::storage::{PREFIX, Tensors};
use wegeft::{AdapterError, AdapterFiles, TargetModules, Targets, site};

use super::decoder::Decoder;
use crate::own_ranks;

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
    let files = with_patterns(files, names, model)?;
    let files = files.renamed(|name| own(names, name).unwrap_or_else(|| name.to_string()));
    Ok((files, warning))
}

/// `files` whose ranks and alphas of their own are listed by the modules of `model`: their patterns are matched with the
/// names in the model with images.
fn with_patterns(mut files: AdapterFiles, names: &Names, model: &Decoder) -> Result<AdapterFiles, AdapterError> {
    // Bad patterns are reported where the adapter is attached.
    let Ok(patterns) = own_ranks::patterns(files.fields()) else {
        return Ok(files);
    };
    if patterns.rank_pattern.is_empty() && patterns.alpha_pattern.is_empty() {
        return Ok(files);
    }
    let has_tensors = |module: &str| {
        let start = format!("{PREFIX}{module}.");
        files.tensors().keys().any(|key| key.starts_with(&start))
    };
    let modules = modules(names, model).into_iter();
    let (wrapped, own): (Vec<String>, Vec<String>) = modules.filter(|(wrapped, _)| has_tensors(wrapped)).unzip();
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for (module, (rank, alpha)) in own.into_iter().zip(own_ranks::of(&patterns, &wrapped)?) {
        ranks.extend(rank.map(|rank| (module.clone(), rank.into())));
        alphas.extend(alpha.map(|alpha| (module, alpha.into())));
    }
    // A field without patterns may have AdaLoRA's lists.
    let unused = [patterns.rank_pattern.is_empty(), patterns.alpha_pattern.is_empty()];
    for ((field, listed), unused) in own_ranks::FIELDS.into_iter().zip([ranks, alphas]).zip(unused) {
        if !unused {
            files = files.with_field(field, Value::Object(listed));
        }
    }
    Ok(files)
}

/// The modules of `model` with parameters: their names in the model with images, and their own.
fn modules(names: &Names, model: &Decoder) -> BTreeSet<(String, String)> {
    let params = site::params(model);
    let modules = params.iter().map(|param| param.name().to_string());
    let wrapped = |module: &str| {
        let mut pairs = names.iter();
        pairs.find_map(|(wrapped, own)| Some(format!("{wrapped}{}", module.strip_prefix(own)?)))
    };
    modules
        .map(|module| (wrapped(&module).unwrap_or_else(|| module.clone()), module))
        .collect()
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
    let mut listed = Vec::new();
    for (wrapped, module) in modules(names, model) {
        if targets.names(&wrapped)? {
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

    /// As PEFT matches them, with the names in the model with images.
    #[test]
    fn patterns_of_ranks_and_alphas_are_those_of_the_model_with_images() {
        let [query, value] = ["q_proj", "v_proj"].map(|layer| format!("model.layers.0.self_attn.{layer}"));
        let config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"],
            "rank_pattern": {&query: 3}, "alpha_pattern": {&value: 8.0}});
        let config: AdapterConfig = serde_json::from_value(config).unwrap();
        let plain = config.init(gemma()).unwrap().files();
        for names in &WRAPPERS {
            let wrapped = plain.clone().renamed(|name| match name.strip_prefix(names[0].1) {
                Some(rest) => format!("{}{rest}", names[0].0),
                None => name.to_string(),
            });
            let name = names[0].0;
            for [ranks, alphas] in [
                [
                    json!({r"^.*language_model.*\.layers\.0\..*q_proj": 3, "vision_tower.*q_proj": 7}),
                    json!({"^(?!.*vision).*layers.0.self_attn.v_proj": 8.0}),
                ],
                [
                    json!({format!("{name}layers.0.self_attn.q_proj"): 3}),
                    json!({"layers.0.self_attn.v_proj": 8.0, "vision_tower.*": 1.0}),
                ],
            ] {
                let files = wrapped.clone().with_field("rank_pattern", ranks.clone());
                let files = files.with_field("alpha_pattern", alphas.clone());
                let adapted = attach(gemma(), files).unwrap();
                assert!(adapted.warnings().is_empty(), "{:?}", adapted.warnings());
                let files = adapted.files();
                assert_eq!(files.tensors(), plain.tensors(), "{ranks}");
                assert_eq!(files.fields()["alpha_pattern"], json!({&value: 8.0}), "{alphas}");
            }
        }
    }
}
