//! The two heads of a distilled model in an adapter: one reads the CLS token, one the distillation token, and the model's
//! logits are the mean of theirs. Here they are one head over both tokens.

use burn::tensor::Device;
use serde_json::{Map, Value, json};
use wegeft::AdapterFiles;
use wegeft::storage::{Stored, Tensors};

use super::{PREFIX, Translated};
use crate::import::Pretrained;
use crate::import::export::Layout;
use crate::import::family::Family;
use crate::import::rename::{Ours, ours};
use crate::vit::{HeadPool, Pool};

/// An adapter that PEFT trained on timm's distilled model, with a head over both tokens; `None` if the model is another one
/// or the adapter has no head of it. timm's names are ours, but its `head` is only one of two, while a head that was trained
/// here reads the mean of both tokens.
///
/// # Errors
/// One of the heads is neither in the adapter nor in the model's files, or the two do not fit each other.
pub(super) fn of_timm(
    pretrained: &Pretrained,
    config: &Map<String, Value>,
    tensors: &Tensors,
    device: &Device,
) -> Result<Option<Translated>, String> {
    let shape = &pretrained.config;
    if !shape.dist_token || shape.pool != Pool::Cls {
        return Ok(None);
    }
    let over_both = |classes: usize| {
        let model = pretrained.model.clone();
        model.with_head_over(classes, Some(HeadPool::ClsDist), device)
    };
    let head = format!("{PREFIX}head.weight");
    if let Some([classes, width]) = tensors.get(&head).map(|head| &head.shape[..])
        && *width == 2 * shape.d_model
    {
        // Written here from an adapter of PEFT: both heads are one already.
        return Ok(Some(Translated {
            model: over_both(*classes),
            files: AdapterFiles::new(config.clone(), tensors.clone()),
        }));
    }
    let has = |name: &str| tensors.keys().any(|key| key.starts_with(&format!("{PREFIX}{name}.")));
    // PEFT notes the class that it adapted.
    let of_peft = config.get("auto_mapping").is_some_and(Value::is_object);
    if !(has("head_dist") || of_peft && has("head")) {
        return Ok(None);
    }
    let plain = |name: &String| name.replace(".default.", ".").replace(".modules_to_save.", ".");
    let own = tensors.iter().filter(|(name, _)| !name.contains(".original_module."));
    let mut found: Tensors = own.map(|(name, tensor)| (plain(name), tensor.clone())).collect();
    complete(&mut found, &pretrained.layout)?;
    join(&mut found)?;
    let classes = found.get(&head).and_then(|head| head.shape.first().copied());
    let mut fields = config.clone();
    let saved = config.get("modules_to_save").and_then(Value::as_array);
    let others = saved
        .into_iter()
        .flatten()
        .filter(|name| *name != "head" && *name != "head_dist");
    let saved: Vec<Value> = others.cloned().chain([json!("head")]).collect();
    fields.insert("modules_to_save".into(), json!(saved));
    Ok(Some(Translated {
        model: over_both(classes.unwrap_or(0)),
        files: AdapterFiles::new(fields, found),
    }))
}

/// Names of the heads of transformers' classes.
const OF_CLASSES: [&str; 3] = ["classifier", "cls_classifier", "distillation_classifier"];

/// True for the tensor of a head under its name in transformers' class.
pub(super) fn is_of_class(key: &str) -> bool {
    let module = key.strip_prefix(PREFIX).unwrap_or(key).split('.').next();
    module.is_some_and(|module| OF_CLASSES.contains(&module))
}

/// The tensors and the config of an adapter that has our names but for its head, as `adapter convert` writes it, with our
/// names for all.
pub(super) fn renamed(config: &Map<String, Value>, tensors: &Tensors, family: Family) -> (Tensors, Map<String, Value>) {
    let own = tensors.iter().filter(|(name, _)| !name.contains(".original_module."));
    let our_name = |key: &String| -> String {
        let plain = key.replace(".default.", ".").replace(".modules_to_save.", ".");
        match ours(plain.strip_prefix(PREFIX).unwrap_or(&plain), family) {
            Ours::Whole(name) if is_of_class(key) => format!("{PREFIX}{name}"),
            _ => key.clone(),
        }
    };
    let found = own.map(|(key, tensor)| (our_name(key), tensor.clone())).collect();
    let saved = config.get("modules_to_save").and_then(Value::as_array);
    let is_head = |name: &Value| name.as_str().is_some_and(|name| OF_CLASSES.contains(&name));
    let others = saved.into_iter().flatten().filter(|name| !is_head(name));
    let saved: Vec<Value> = others.cloned().chain([json!("head")]).collect();
    let mut fields = config.clone();
    fields.insert("modules_to_save".into(), json!(saved));
    (found, fields)
}

/// Adds what the adapter leaves of the two heads as the model has it.
///
/// # Errors
/// A tensor that the model has not either; files that cannot be read any more.
pub(super) fn complete(tensors: &mut Tensors, layout: &Layout) -> Result<(), String> {
    for name in ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"] {
        let key = format!("{PREFIX}{name}");
        if tensors.contains_key(&key) {
            continue;
        }
        let stored = layout.stored(name).map_err(|e| e.to_string())?;
        let stored = stored.ok_or_else(|| {
            format!(
                "the logits of this distilled model are the mean of two heads, and neither the adapter nor the model has \
                 '{name}'; train both heads as modules_to_save"
            )
        })?;
        tensors.insert(key, stored);
    }
    Ok(())
}

/// The heads over the CLS and the distillation token as one over both; of one head the latter's part is zero.
pub(super) fn join(tensors: &mut Tensors) -> Result<(), String> {
    for kind in ["weight", "bias"] {
        let name = |head: &str| format!("{PREFIX}{head}.{kind}");
        let Some(cls) = tensors.remove(&name("head")) else {
            continue;
        };
        let dist = tensors.remove(&name("head_dist"));
        let share = if dist.is_some() { 0.5 } else { 1.0 };
        let dist = dist.unwrap_or_else(|| Stored {
            values: vec![0.0; cls.values.len()],
            ..cls.clone()
        });
        let axes = if kind == "weight" { 2 } else { 1 };
        if cls.shape != dist.shape || cls.shape.len() != axes {
            return Err(format!(
                "the two heads' {kind}s have shapes {:?} and {:?}; train both heads as modules_to_save",
                cls.shape, dist.shape
            ));
        }
        let rows = cls.shape[0];
        let columns = cls.values.len() / rows.max(1);
        let mut shape = cls.shape.clone();
        let values: Vec<f32> = match kind {
            "weight" => {
                shape[1] *= 2;
                let rows = cls
                    .values
                    .chunks(columns.max(1))
                    .zip(dist.values.chunks(columns.max(1)));
                rows.flat_map(|(cls, dist)| [cls, dist].concat())
                    .map(|value| share * value)
                    .collect()
            }
            _ => cls
                .values
                .iter()
                .zip(&dist.values)
                .map(|(a, b)| share * (a + b))
                .collect(),
        };
        tensors.insert(name("head"), Stored { shape, values });
    }
    Ok(())
}
