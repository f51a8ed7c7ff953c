//! What adapter files of other programs hold beside an adapter's own tensors, and how they spell names.
//!
//! | in the file | what it is |
//! | --- | --- |
//! | `….lora_A.default.weight` | PEFT's name of the adapter, which it leaves out when it saves |
//! | `….lora_magnitude_vector.weight` | DoRA's magnitudes as they are called in a running model |
//! | `….modules_to_save.weight`, `….original_module.weight` | a module that is trained in full once more, and the frozen one in its place |
//! | `….base_layer.weight`, `….base_layer.bias` | the frozen layer below an adapter: a head or an embedding that is a target, a bias that is trained |
//! | `….token_adapter.base_layer.weight` | the frozen embedding below single rows that are trained beside another adapter |
//! | `lm_head.weight`, `model.embed_tokens.weight` | the backbone's own, saved with the adapter after its vocabulary grew |

use std::path::Path;

use burn::module::Module;

use crate::checkpoint::{Names, Tensors, collect};
use crate::error::AdapterError;
use crate::factors::Spec;
use crate::site;
use crate::storage::PREFIX;

/// PEFT's name of a frozen layer below an adapter.
const BASE_LAYER: &str = "base_layer";
/// PEFT's name of an adapter that was not given one.
const ADAPTER: &str = "default";

/// Gives tensors that are spelled in another way the names that `names` expects.
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
                // Which of two is meant, nobody can tell.
                Some(_) => drop(tensors.insert(spelling, stored)),
            }
        }
        tensors.remove(&format!("{module}.original_module.{field}"));
    }
}

/// Gives the frozen embedding below single trained rows beside another adapter of it the name that it has below one adapter.
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

/// The tensors of a file that `names` does not expect, that are parameters of the backbone itself and differ from `model`'s, by
/// their paths in it; those that do not differ are taken out.
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

/// Elements that no factor of a small file is refused for.
const SMALL: usize = 1 << 22;

/// Refuses factors that are far larger than all that the file holds, which a config asks for that is another file's or damaged:
/// memory for them is better never asked for.
pub(crate) fn check_sizes(expected: &[(Spec, String)], tensors: &Tensors, path: &Path) -> Result<(), AdapterError> {
    let elements: usize = tensors.values().map(|stored| stored.values.len()).sum();
    let most = elements.saturating_mul(16).max(SMALL);
    let is_too_large = |spec: &Spec| {
        let mut sizes = spec.shape.iter();
        let length = sizes.try_fold(1usize, |product, size| product.checked_mul(*size));
        length.is_none_or(|length| length > most)
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
    let large = expected.iter().filter(|(spec, _)| is_too_large(spec));
    let problems: Vec<String> = large.map(problem).collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(AdapterError::Mismatch {
            path: path.to_path_buf(),
            problems: problems.join("; "),
        }),
    }
}
