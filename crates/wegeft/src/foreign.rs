//! What adapter files of other programs contain beyond the adapter's own tensors, and other spellings of their keys.
//!
//! | in the file | what it is |
//! | --- | --- |
//! | `….lora_A.default.weight` | PEFT's name of the adapter, which PEFT itself omits when saving |
//! | `….lora_magnitude_vector.weight` | the key of DoRA's magnitudes in a live PEFT model |
//! | `….modules_to_save.weight`, `….original_module.weight` | a module trained in full, and the frozen original that it replaces |
//! | `….base_layer.weight`, `….base_layer.bias` | the frozen layer below an adapter: a head or an embedding that is a target, a bias that is trained |
//! | `base_model.score.weight` | a module trained in full beside virtual tokens |
//! | `….token_adapter.base_layer.weight` | the frozen embedding below single rows that are trained beside another adapter |
//! | `lm_head.weight`, `model.embed_tokens.weight` | weights of the backbone, saved with the adapter after its vocabulary was resized |

use std::collections::HashSet;
use std::path::Path;

use burn::module::Module;

use crate::checkpoint::{Names, PREFIX, Tensors, collect};
use crate::error::AdapterError;
use crate::factors::Spec;
use crate::site;

/// What stands before the names of the model's own tensors beside virtual tokens.
const BARE_PREFIX: &str = "base_model.";
/// PEFT's name of a frozen layer below an adapter.
const BASE_LAYER: &str = "base_layer";
/// PEFT's name of an adapter that was not given one.
const ADAPTER: &str = "default";

/// Renames tensors with other spellings to the keys that `names` expects.
pub(crate) fn respell(names: &Names, tensors: &mut Tensors) {
    let wanted: HashSet<&String> = names.values().map(|(_, name)| name).collect();
    for (_, name) in names.values() {
        let (module, field) = name.rsplit_once('.').unwrap_or(("", name));
        let mut spellings = vec![
            format!("{module}.{ADAPTER}.{field}"),
            format!("{name}.{ADAPTER}"),
            format!("{name}.weight"),
            format!("{name}.{ADAPTER}.weight"),
        ];
        // The module trained in full may enclose the one whose parameter this is.
        let splits = name.match_indices('.').map(|(at, _)| (&name[..at], &name[at + 1..]));
        let splits: Vec<(&str, &str)> = splits.collect();
        for (outer, inner) in &splits {
            spellings.push(format!("{outer}.modules_to_save.{ADAPTER}.{inner}"));
            spellings.push(format!("{outer}.modules_to_save.{inner}"));
        }
        // Beside virtual tokens PEFT saves the model's own tensors without the name of a wrapper between.
        let plain = name.strip_prefix(PREFIX).map(|plain| format!("{BARE_PREFIX}{plain}"));
        spellings.extend(plain.filter(|plain| !wanted.contains(plain)));
        for spelling in spellings {
            let Some(stored) = tensors.remove(&spelling) else {
                continue;
            };
            match tensors.get(name) {
                None => drop(tensors.insert(name.clone(), stored)),
                Some(known) if *known == stored => {}
                // Two different tensors for one key: left as an unexpected tensor, which is reported.
                Some(_) => drop(tensors.insert(spelling, stored)),
            }
        }
        for (outer, inner) in splits {
            tensors.remove(&format!("{outer}.original_module.{inner}"));
        }
    }
}

/// Renames `…token_adapter.base_layer.…` to `…base_layer.…`, the name it has when no single rows are trained.
pub(crate) fn unwrap_rows(tensors: &mut Tensors) {
    let wrapped = format!(".token_adapter.{BASE_LAYER}.");
    let names: Vec<String> = tensors.keys().filter(|name| name.contains(&wrapped)).cloned().collect();
    for name in names {
        let plain = name.replace(&wrapped, &format!(".{BASE_LAYER}."));
        if !tensors.contains_key(&plain)
            && let Some(stored) = tensors.remove(&name)
        {
            tensors.insert(plain, stored);
        }
    }
}

/// Name on disk of the parameter `name` of a layer that is adapted.
pub(crate) fn below_adapter(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((module, field)) => format!("{module}.{BASE_LAYER}.{field}"),
        None => name.to_string(),
    }
}

/// Tensors of a file that `names` does not expect because they are the backbone's own: those that differ from `model`'s, by path
/// in `model`. Those that are equal are removed from `tensors`.
pub(crate) fn replaced<M: Module>(model: &M, names: &Names, tensors: &mut Tensors) -> Names {
    let wanted: Vec<&String> = names.values().map(|(_, name)| name).collect();
    let surplus: Vec<String> = tensors.keys().filter(|name| !wanted.contains(name)).cloned().collect();
    if surplus.is_empty() {
        return Names::new();
    }
    let params = site::params(model);
    let mut replaced = Names::new();
    for name in surplus {
        let mut spellings = [PREFIX, BARE_PREFIX]
            .into_iter()
            .filter_map(|prefix| name.strip_prefix(prefix));
        let of_it = spellings.find_map(|plain| {
            let plain = plain.replace(&format!(".{BASE_LAYER}."), ".");
            params.iter().find(|param| param.torch_name() == plain)
        });
        let Some(param) = of_it.filter(|param| !param.quantized && param.stored_shape() == tensors[&name].shape) else {
            continue;
        };
        let own = Names::from([(param.path.clone(), (param.clone(), name.clone()))]);
        if collect(model, &own).get(&name) == tensors.get(&name) {
            tensors.remove(&name);
        } else {
            replaced.extend(own);
        }
    }
    replaced
}

/// Elements up to which the factors of an adapter are always accepted, whatever its file has.
const SMALL: usize = 1 << 14;

/// Refuses factors that the file cannot fill, before they are allocated: a factor larger than its tensor, or all of them
/// together far larger than the whole file. Their config is damaged or belongs to another file.
pub(crate) fn check_sizes(expected: &[(Spec, String)], tensors: &Tensors, path: &Path) -> Result<(), AdapterError> {
    let elements: usize = tensors.values().map(|stored| stored.values.len()).sum();
    // Tensors that have other names in the file count here alone.
    let most = elements.saturating_mul(4).max(SMALL);
    let length = |spec: &Spec| {
        let mut sizes = spec.shape.iter();
        let length = sizes.try_fold(1usize, |product, size| product.checked_mul(*size));
        length.unwrap_or(usize::MAX)
    };
    let total = expected
        .iter()
        .fold(0usize, |total, (spec, _)| total.saturating_add(length(spec)));
    let is_too_large = |(spec, name): &&(Spec, String)| match tensors.get(name) {
        Some(stored) => length(spec) > stored.values.len(),
        None => total > most,
    };
    let problem = |(spec, name): &(Spec, String)| {
        let mut shape = spec.shape.clone();
        if spec.transposed {
            shape.reverse();
        }
        match tensors.get(name) {
            Some(stored) => format!("'{name}' has shape {:?}, expected {shape:?}", stored.shape),
            None => format!("missing '{name}' {shape:?}"),
        }
    };
    let problems: Vec<String> = expected.iter().filter(is_too_large).map(problem).collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(AdapterError::Mismatch {
            path: path.to_path_buf(),
            problems: problems.join("; "),
        }),
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;
    use burn::tensor::Device;

    use super::*;
    use crate::checkpoint::Stored;

    fn bias() -> crate::site::ParamInfo {
        site::params(&LinearConfig::new(2, 2).init(&Device::flex()))
            .into_iter()
            .find(|param| param.torch_name() == "bias")
            .unwrap()
    }

    fn stored(value: f32) -> Stored {
        Stored {
            shape: vec![2],
            values: vec![value; 2],
        }
    }

    #[test]
    fn a_head_beside_virtual_tokens_has_a_shorter_name() {
        let names = |known: &[&str]| -> Names {
            let name = |name: &&str| (name.to_string(), (bias(), format!("{PREFIX}{name}")));
            known.iter().map(name).collect()
        };
        let file = |name: &str| Tensors::from([(name.to_string(), stored(1.0))]);
        let mut tensors = file("base_model.score.bias");
        respell(&names(&["score.bias"]), &mut tensors);
        assert_eq!(tensors, file("base_model.model.score.bias"));
        // The name of another parameter is no other spelling.
        respell(&names(&["score.bias", "model.score.bias"]), &mut tensors);
        assert_eq!(tensors, file("base_model.model.score.bias"));
    }

    #[test]
    fn a_module_trained_in_full_may_enclose_the_layer() {
        let expected = "base_model.model.classifier.dense.bias";
        let names = Names::from([("classifier.dense.bias".to_string(), (bias(), expected.to_string()))]);
        for saved in [
            "classifier.modules_to_save.default.dense.bias",
            "classifier.modules_to_save.dense.bias",
            "classifier.dense.modules_to_save.default.bias",
            "classifier.dense.modules_to_save.bias",
        ] {
            let original = saved.replace("modules_to_save.default", "original_module");
            let original = original.replace("modules_to_save", "original_module");
            let mut tensors = Tensors::from([
                (format!("{PREFIX}{saved}"), stored(1.0)),
                (format!("{PREFIX}{original}"), stored(0.0)),
            ]);
            respell(&names, &mut tensors);
            assert_eq!(tensors, Tensors::from([(expected.to_string(), stored(1.0))]), "{saved}");
        }
    }
}
