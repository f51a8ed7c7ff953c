//! What adapter files of other programs contain beyond the adapter's own tensors, and other spellings of their keys.
//!
//! | in the file | what it is |
//! | --- | --- |
//! | `….lora_A.default.weight` | PEFT's name of the adapter, which PEFT itself omits when saving |
//! | `….lora_magnitude_vector.weight` | the key of DoRA's magnitudes in a live PEFT model |
//! | `….modules_to_save.weight`, `….original_module.weight` | a module trained in full, and the frozen original that it replaces |
//! | `….base_layer.weight`, `….base_layer.bias` | the frozen layer below an adapter: a head or an embedding that is a target, a bias that is trained |
//! | `….token_adapter.base_layer.weight` | the frozen embedding below single rows that are trained beside another adapter |
//! | `lm_head.weight`, `model.embed_tokens.weight` | weights of the backbone, saved with the adapter after its vocabulary was resized |

use std::path::Path;

use burn::module::Module;

use crate::checkpoint::{Names, PREFIX, Tensors, collect};
use crate::error::AdapterError;
use crate::factors::Spec;
use crate::site;

/// PEFT's name of a frozen layer below an adapter.
const BASE_LAYER: &str = "base_layer";
/// PEFT's name of an adapter that was not given one.
const ADAPTER: &str = "default";

/// Renames tensors with other spellings to the keys that `names` expects.
pub(crate) fn respell(names: &Names, tensors: &mut Tensors) {
    for (_, name) in names.values() {
        let (module, field) = name.rsplit_once('.').unwrap_or(("", name));
        let spellings = [
            format!("{module}.{ADAPTER}.{field}"),
            format!("{name}.{ADAPTER}"),
            format!("{name}.weight"),
            format!("{name}.{ADAPTER}.weight"),
            format!("{module}.modules_to_save.{ADAPTER}.{field}"),
            format!("{module}.modules_to_save.{field}"),
        ];
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
        tensors.remove(&format!("{module}.original_module.{field}"));
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
        // Beside virtual tokens PEFT saves the model's own tensors without the name of a wrapper between.
        let mut spellings = [PREFIX, "base_model."]
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
