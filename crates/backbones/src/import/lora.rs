//! A LoRA adapter of a model of transformers under the names of transformers' class, so that PEFT loads it on that class.

use serde_json::{Map, Value, json};
use wegeft::storage::{PREFIX, Stored, Tensors};
use wegeft::{AdapterError, AdapterFiles};

use super::export::Layout;
use super::family::Family;
use crate::vit::{Pool, Vit, VitConfig};

impl Layout {
    /// `files`, an adapter of `model` under this crate's names, with its head under the names that it has in transformers'
    /// class or in timm: they say what the head reads. A head that no class has keeps our name. `config` is the shape of
    /// the model as it was read.
    pub fn with_head_of_class(&self, files: AdapterFiles, model: &Vit, config: &VitConfig) -> AdapterFiles {
        let of_head = files.tensors().iter().filter(|(key, _)| is_head(key));
        let head: Tensors = of_head
            .map(|(key, tensor)| (key.replacen(PREFIX, "", 1), tensor.clone()))
            .collect();
        let one_name = self.family() == Family::Timm && !(config.dist_token && config.pool == Pool::Cls);
        if head.is_empty() || one_name {
            return files;
        }
        let Some(heads) = self.heads_of_class(head, model, config) else {
            return files;
        };
        let mut tensors = files.tensors().clone();
        tensors.retain(|key, _| !is_head(key));
        let saved = files.fields().get("modules_to_save").and_then(Value::as_array);
        let mut saved: Vec<Value> = saved
            .into_iter()
            .flatten()
            .filter(|name| *name != "head")
            .cloned()
            .collect();
        for (name, tensor) in heads {
            let module = json!(name.split('.').next().unwrap_or(&name));
            if !saved.contains(&module) {
                saved.push(module);
            }
            tensors.insert(format!("{PREFIX}{name}"), tensor);
        }
        let mut fields = files.fields().clone();
        fields.insert("modules_to_save".into(), json!(saved));
        AdapterFiles::new(fields, tensors)
    }

    /// `files`, a LoRA adapter of `model`, with its modules renamed from this crate's names (which are timm's) to those of
    /// transformers 5. Of timm's models only the two heads of a distilled one have other names here. `config` is the shape
    /// of the model as it was read.
    ///
    /// # Errors
    /// A module that transformers' class does not have, or that is trained in full and is not a head; a head that no class
    /// has.
    pub fn lora_for_peft(
        &self,
        files: AdapterFiles,
        model: &Vit,
        config: &VitConfig,
    ) -> Result<AdapterFiles, AdapterError> {
        if self.family() == Family::Timm {
            return Ok(self.with_head_of_class(files, model, config));
        }
        let refused = |site: &str, why: &str| AdapterError::NoLoraForm {
            method: "an adapter of a Hugging Face vision model".into(),
            site: site.to_string(),
            reason: format!("'{site}': {why}; use adapter merge instead"),
        };
        let gated = model.blocks.first().is_some_and(|block| block.mlp.is_gated());
        let root = self.root();
        let mut tensors = Tensors::new();
        let mut head = Tensors::new();
        let mut targets = Vec::new();
        let (mut ranks, mut alphas) = (Map::new(), Map::new());
        let pattern = |field: &str, module: &str| files.fields().get(field)?.get(module).cloned();
        for (key, tensor) in files.tensors() {
            let name = key.strip_prefix(PREFIX).unwrap_or(key);
            if name.starts_with("head.") {
                head.insert(name.to_string(), tensor.clone());
                continue;
            }
            let (module, factor) = [".lora_A.weight", ".lora_B.weight"]
                .iter()
                .find_map(|factor| Some((name.strip_suffix(*factor)?, *factor)))
                .ok_or_else(|| refused(name, "only LoRA and a head can be exported"))?;
            let parts = theirs(self.family(), module, gated)
                .ok_or_else(|| refused(module, "transformers' class has no one layer of that name"))?;
            let b = files.tensors().get(&format!("{PREFIX}{module}.lora_B.weight"));
            let b = b.ok_or_else(|| refused(module, "its factors are incomplete"))?;
            let is_zero = |b: &Stored| b.values.iter().all(|value| *value == 0.0);
            let untrained = is_zero(b);
            for (index, part) in parts.iter().enumerate() {
                let rows = rows_of(b, index, parts.len())
                    .ok_or_else(|| refused(module, "its factors have another size than the layer"))?;
                // A part that is not adapted: its rows of B are zero.
                if !untrained && is_zero(&rows) {
                    continue;
                }
                let part = format!("{root}{part}");
                let (a, is_b) = (tensor.clone(), factor == ".lora_B.weight");
                tensors.insert(format!("{PREFIX}{part}{factor}"), if is_b { rows } else { a });
                for (field, values) in [("rank_pattern", &mut ranks), ("alpha_pattern", &mut alphas)] {
                    values.extend(pattern(field, module).map(|value| (part.clone(), value)));
                }
                if is_b {
                    targets.push(part);
                }
            }
        }
        let mut saved = Vec::new();
        if !head.is_empty() {
            let heads = self.heads_of_class(head, model, config);
            let heads = heads.ok_or_else(|| refused("head", "no class of transformers has such a head"))?;
            for (name, tensor) in heads {
                let (module, _) = name.split_once('.').unwrap_or((name.as_str(), ""));
                if !saved.iter().any(|known| known == module) {
                    saved.push(module.to_string());
                }
                tensors.insert(format!("{PREFIX}{name}"), tensor);
            }
        }
        let base = self.folder();
        let base = std::fs::canonicalize(&base).unwrap_or(base);
        let mut fields = files.fields().clone();
        fields.insert("target_modules".into(), json!(targets));
        fields.insert("rank_pattern".into(), Value::Object(ranks));
        fields.insert("alpha_pattern".into(), Value::Object(alphas));
        fields.insert("modules_to_save".into(), json!(saved));
        fields.insert("base_model_name_or_path".into(), json!(base.display().to_string()));
        Ok(AdapterFiles::new(fields, tensors))
    }
}

/// True for the key of a tensor of the head, under our name.
fn is_head(key: &str) -> bool {
    key.strip_prefix(PREFIX).is_some_and(|name| name.starts_with("head."))
}

/// The layers of transformers' class that `module` of ours is, one above the other, without what stands before them.
fn theirs(family: Family, module: &str, gated: bool) -> Option<Vec<String>> {
    let (block, layer) = module.strip_prefix("blocks.")?.split_once('.')?;
    let (list, attention, out) = match family {
        Family::Vit | Family::Deit => ("layers", "attention", "o_proj"),
        Family::Dinov2 => ("encoder.layer", "attention", "o_proj"),
        Family::Clip | Family::Siglip => ("encoder.layers", "self_attn", "out_proj"),
        // transformers has no class with a head.
        Family::Dinov3 | Family::Timm => return None,
    };
    let layers = match (layer, gated) {
        ("attn.qkv", _) => ["q_proj", "k_proj", "v_proj"]
            .map(|part| format!("{attention}.{part}"))
            .to_vec(),
        ("attn.proj", _) => vec![format!("{attention}.{out}")],
        ("mlp.fc1", true) => vec!["mlp.gate_proj".into(), "mlp.up_proj".into()],
        ("mlp.fc2", true) => vec!["mlp.down_proj".into()],
        ("mlp.fc1" | "mlp.fc2", false) => vec![layer.to_string()],
        _ => return None,
    };
    Some(
        layers
            .into_iter()
            .map(|layer| format!("{list}.{block}.{layer}"))
            .collect(),
    )
}

/// Rows of part `index` of `of` of a factor.
fn rows_of(factor: &Stored, index: usize, of: usize) -> Option<Stored> {
    let [rows, rank] = factor.shape[..] else {
        return None;
    };
    let size = rows / of * rank;
    rows.is_multiple_of(of).then(|| Stored {
        shape: vec![rows / of, rank],
        values: factor.values[index * size..(index + 1) * size].to_vec(),
    })
}
