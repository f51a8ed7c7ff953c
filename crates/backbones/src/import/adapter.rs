//! Adapters that Hugging Face PEFT trained on transformers' models, under the module names of ours. Query, key and value
//! are one layer here: their LoRA factors become one pair of factors, side by side.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Device;
use serde_json::{Map, Value, json};
use wegeft::AdapterFiles;
use wegeft::storage::{Stored, Tensors, collect};

use super::family::Family;
use super::rename::{Ours, ours};
use super::{Pretrained, names};
use crate::vit::{HeadPool, Vit};

/// What PEFT writes before every name.
const PREFIX: &str = "base_model.model.";

/// An adapter under our names, and the model that it belongs on.
#[derive(Debug, Clone)]
pub struct Translated {
    /// The model, with a head over what transformers' class reads if the adapter has one.
    pub model: Vit,
    /// Its files.
    pub files: AdapterFiles,
}

impl Pretrained {
    /// The adapter of an adapter_config.json and its tensors, trained by PEFT on transformers' class of this model, under
    /// our names; `None` if it has them already.
    ///
    /// # Errors
    /// A method that cannot adapt only a part of a fused layer; tensors that do not fit each other.
    pub fn translate_adapter(
        &self,
        config: &Map<String, Value>,
        tensors: &Tensors,
        device: &Device,
    ) -> Result<Option<Translated>, String> {
        let family = self.layout.family();
        let is_ours = |name: &String| {
            let name = name.strip_prefix(PREFIX).unwrap_or(name);
            ours(name, family) == Ours::Whole(name.to_string())
        };
        if family == Family::Timm || tensors.keys().all(is_ours) {
            return Ok(None);
        }
        let mut translation = Translation::new(config, family, &self.model);
        for (name, tensor) in tensors {
            translation.add(name, tensor.clone())?;
        }
        let mut model = self.model.clone();
        let mut found = translation.finished()?;
        let head = found
            .get(&format!("{PREFIX}head.weight"))
            .map(|head| head.shape.clone());
        if let Some([classes, _]) = head.as_deref() {
            model = with_head_of_class(model, family, *classes, device);
            if model.head_pool() == Some(HeadPool::ClsDist) {
                join_heads(&mut found)?;
            }
        }
        Ok(Some(Translated {
            model,
            files: AdapterFiles::new(translation.config(), found),
        }))
    }
}

/// `model` with a fresh head over what transformers' class with a head reads.
fn with_head_of_class(model: Vit, family: Family, classes: usize, device: &Device) -> Vit {
    let pool = match family {
        Family::Dinov2 => Some(HeadPool::ClsMean),
        Family::Deit if model.dist_token.is_some() => Some(HeadPool::ClsDist),
        Family::Clip => Some(HeadPool::MeanUnnormed),
        Family::Siglip => Some(HeadPool::Mean),
        _ => None,
    };
    model.with_head_over(classes, pool, device)
}

/// The heads over the CLS and the distillation token as one over both; of one head the latter's part is zero.
fn join_heads(tensors: &mut Tensors) -> Result<(), String> {
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
        if cls.shape != dist.shape || cls.shape.is_empty() {
            return Err(format!(
                "the two heads' {kind}s have shapes {:?} and {:?}",
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

/// The parts of a fused module that an adapter has, each with its tensors by suffix.
type Parts = BTreeMap<usize, BTreeMap<String, Stored>>;

struct Translation<'a> {
    given: &'a Map<String, Value>,
    family: Family,
    model: &'a Vit,
    /// Tensors of whole modules.
    whole: Tensors,
    /// Of each fused module the number of its parts, and those that the adapter has.
    fused: BTreeMap<String, (usize, Parts)>,
    /// Modules with an adapter.
    targets: BTreeSet<String>,
    /// Those of them that IA3 scales the input of.
    feedforward: BTreeSet<String>,
    /// Modules trained in full.
    saved: BTreeSet<String>,
    /// Rank and alpha of each LoRA module.
    ranks: BTreeMap<String, (usize, f64)>,
}

/// Ends of the names of adapter tensors, after the module.
const SUFFIXES: [&str; 6] = [
    "lora_A.weight",
    "lora_B.weight",
    "lora_B.bias",
    "lora_magnitude_vector",
    "lora_magnitude_vector.weight",
    "ia3_l",
];

impl<'a> Translation<'a> {
    fn new(given: &'a Map<String, Value>, family: Family, model: &'a Vit) -> Self {
        Self {
            given,
            family,
            model,
            whole: Tensors::new(),
            fused: BTreeMap::new(),
            targets: BTreeSet::new(),
            feedforward: BTreeSet::new(),
            saved: BTreeSet::new(),
            ranks: BTreeMap::new(),
        }
    }

    fn add(&mut self, name: &str, tensor: Stored) -> Result<(), String> {
        let short = name.strip_prefix(PREFIX).unwrap_or(name);
        let short = short
            .replace(".modules_to_save.default.", ".")
            .replace(".default.", ".")
            .replace(".base_layer.", ".");
        let suffix = SUFFIXES.iter().find_map(|suffix| {
            let module = short.strip_suffix(suffix)?.strip_suffix('.')?;
            Some((module.to_string(), suffix.to_string()))
        });
        let (module, suffix, adapts) = match suffix {
            Some((module, suffix)) => (module, suffix, true),
            None => {
                let (module, parameter) = short
                    .rsplit_once('.')
                    .ok_or_else(|| format!("'{name}' is no tensor of an adapter"))?;
                (module.to_string(), parameter.to_string(), false)
            }
        };
        let (ours, part) = match ours(&module, self.family) {
            Ours::Whole(name) => (name, None),
            Ours::Part { name, index, of: 3 } => (name, Some((index, 3))),
            // A plain MLP has the name of a gated one's second half.
            Ours::Part { name, index, of } => match self.model.blocks.first().is_some_and(|block| block.mlp.is_gated())
            {
                true => (name, Some((index, of))),
                false => (name, None),
            },
        };
        if adapts {
            self.targets.insert(ours.clone());
            if suffix == "ia3_l" && tensor.shape.first() == Some(&1) {
                self.feedforward.insert(ours.clone());
            }
            if suffix == "lora_A.weight" {
                self.rank(&module, &ours, &tensor)?;
            }
        } else if !is_bias_of_method(self.given, &suffix) {
            self.saved.insert(ours.clone());
        }
        match part {
            None => {
                self.whole.insert(format!("{PREFIX}{ours}.{suffix}"), tensor);
            }
            Some((index, of)) => {
                let mut tensor = tensor;
                if suffix == "lora_B.weight" {
                    self.scaled(&module, &mut tensor)?;
                }
                let (_, parts) = self.fused.entry(ours).or_insert_with(|| (of, Parts::new()));
                parts.entry(index).or_default().insert(suffix, tensor);
            }
        }
        Ok(())
    }

    /// Notes rank and alpha of a module; a fused one has the sum of its parts' ranks, and a scale of 1.
    fn rank(&mut self, theirs: &str, ours: &str, factor: &Stored) -> Result<(), String> {
        let rank = factor.shape.first().copied().unwrap_or(0);
        let alpha = self.alpha(theirs)?;
        let entry = self.ranks.entry(ours.to_string()).or_insert((0, 0.0));
        *entry = (entry.0 + rank, alpha);
        Ok(())
    }

    /// `lora_alpha` of a module, by the first pattern that fits it as PEFT reads them.
    fn alpha(&self, module: &str) -> Result<f64, String> {
        let patterns = self.given.get("alpha_pattern").and_then(Value::as_object);
        for (pattern, alpha) in patterns.into_iter().flatten() {
            let literal = pattern.strip_prefix('^').unwrap_or(pattern);
            if literal.contains(['*', '+', '?', '(', '[', '\\', '|', '$', '{']) {
                return Err(format!(
                    "field 'alpha_pattern' has the regular expression '{pattern}'; write the modules' names out"
                ));
            }
            let fits = match pattern.starts_with('^') {
                true => module == literal,
                false => module == literal || module.ends_with(&format!(".{literal}")),
            };
            if fits {
                return alpha
                    .as_f64()
                    .ok_or_else(|| format!("field 'alpha_pattern' has {alpha}; expected a number"));
            }
        }
        Ok(self.given.get("lora_alpha").and_then(Value::as_f64).unwrap_or(8.0))
    }

    /// Puts the scale of a part's LoRA into its B: the fused factors have one scale for all parts.
    fn scaled(&self, module: &str, factor: &mut Stored) -> Result<(), String> {
        let rank = match factor.shape[..] {
            [_, rank] if rank > 0 => rank as f64,
            _ => return Err(format!("lora_B of '{module}' has shape {:?}", factor.shape)),
        };
        let rslora = self.given.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        let scale = self.alpha(module)? / if rslora { rank.sqrt() } else { rank };
        for value in &mut factor.values {
            *value = (f64::from(*value) * scale) as f32;
        }
        Ok(())
    }

    /// All tensors under our names.
    fn finished(&mut self) -> Result<Tensors, String> {
        let mut tensors = std::mem::take(&mut self.whole);
        for (module, (of, parts)) in std::mem::take(&mut self.fused) {
            let suffixes: BTreeSet<&String> = parts.values().flat_map(BTreeMap::keys).collect();
            for suffix in suffixes {
                let found = parts
                    .iter()
                    .filter_map(|(index, tensors)| Some((*index, tensors.get(suffix)?)));
                let found: BTreeMap<usize, &Stored> = found.collect();
                let fused = match suffix.as_str() {
                    "lora_A.weight" => above_each_other(found.values().copied()),
                    "lora_B.weight" => block_diagonal(of, &found),
                    "lora_magnitude_vector" | "lora_magnitude_vector.weight" => {
                        let norms = || self.base(&format!("{module}.weight")).map(|weight| row_norms(&weight));
                        filled(of, &found, norms)
                    }
                    "ia3_l" => filled(of, &found, || Some(vec![1.0; of * found.values().next()?.values.len()])),
                    "bias" => filled(of, &found, || {
                        self.base(&format!("{module}.bias")).map(|bias| bias.values)
                    }),
                    other if found.len() == of && other == "weight" => above_each_other(found.values().copied()),
                    _ => None,
                };
                let fused = fused.ok_or_else(|| {
                    format!(
                        "the parts of '{module}' (query, key, value, or gate and up) have '{suffix}', which cannot be put \
                         together here: their shapes differ, or the method is neither LoRA nor IA3"
                    )
                })?;
                tensors.insert(format!("{PREFIX}{module}.{suffix}"), fused);
            }
            if let Some(rank) = self.ranks.get_mut(&module) {
                let rslora = self.given.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
                rank.1 = if rslora { (rank.0 as f64).sqrt() } else { rank.0 as f64 };
            }
        }
        Ok(tensors)
    }

    /// A parameter of the model, in PyTorch's orientation.
    fn base(&self, name: &str) -> Option<Stored> {
        let mut names = names(self.model);
        names.retain(|_, (_, found)| found == name);
        collect(self.model, &names).remove(name)
    }

    /// adapter_config.json under our names. Which modules have what is known from the tensors, so patterns are not needed.
    fn config(&self) -> Map<String, Value> {
        let mut fields = self.given.clone();
        for field in [
            "exclude_modules",
            "layers_to_transform",
            "layers_pattern",
            "target_parameters",
        ] {
            fields.shift_remove(field);
        }
        if !self.targets.is_empty() {
            fields.insert("target_modules".into(), json!(self.targets));
        }
        if !self.feedforward.is_empty() || fields.contains_key("feedforward_modules") {
            fields.insert("feedforward_modules".into(), json!(self.feedforward));
        }
        let saved: Vec<&String> = self.saved.iter().filter(|name| *name != "head_dist").collect();
        if !saved.is_empty() {
            fields.insert("modules_to_save".into(), json!(saved));
        }
        if !self.ranks.is_empty() {
            let by = |value: &dyn Fn(&(usize, f64)) -> Value| {
                let entries = self.ranks.iter().map(|(module, rank)| (module.clone(), value(rank)));
                Value::Object(entries.collect::<Map<_, _>>())
            };
            fields.insert("rank_pattern".into(), by(&|(rank, _)| json!(rank)));
            fields.insert("alpha_pattern".into(), by(&|(_, alpha)| json!(alpha)));
        }
        fields
    }
}

/// True for a bias that the method trains itself, beside its factors.
fn is_bias_of_method(config: &Map<String, Value>, parameter: &str) -> bool {
    let trains = config.get("bias").and_then(Value::as_str).unwrap_or("none");
    parameter == "bias" && trains != "none"
}

/// `[a, d]`, `[b, d]`, … to `[a + b + …, d]`; vectors likewise.
fn above_each_other<'a>(parts: impl Iterator<Item = &'a Stored>) -> Option<Stored> {
    let parts: Vec<&Stored> = parts.collect();
    let mut shape = parts.first()?.shape.clone();
    if shape.is_empty()
        || parts
            .iter()
            .any(|part| part.shape.len() != shape.len() || part.shape[1..] != shape[1..])
    {
        return None;
    }
    shape[0] = parts.iter().map(|part| part.shape[0]).sum();
    Some(Stored {
        shape,
        values: parts.iter().flat_map(|part| part.values.iter().copied()).collect(),
    })
}

/// Places the parts' `[d, r]` factors into one `[of·d, Σr]`, each in its own rows.
fn block_diagonal(of: usize, parts: &BTreeMap<usize, &Stored>) -> Option<Stored> {
    let width = parts.values().next()?.shape[0];
    if parts
        .values()
        .any(|part| part.shape.len() != 2 || part.shape[0] != width)
    {
        return None;
    }
    let columns: usize = parts.values().map(|part| part.shape[1]).sum();
    let mut values = vec![0.0; of * width * columns];
    let mut first = 0;
    for (index, part) in parts {
        let rank = part.shape[1];
        for (row, source) in part.values.chunks_exact(rank.max(1)).enumerate() {
            let at = (index * width + row) * columns + first;
            values[at..at + rank].copy_from_slice(source);
        }
        first += rank;
    }
    Some(Stored {
        shape: vec![of * width, columns],
        values,
    })
}

/// Vectors of some of the `of` parts in one, the others' elements being those of `rest`.
fn filled(of: usize, parts: &BTreeMap<usize, &Stored>, rest: impl Fn() -> Option<Vec<f32>>) -> Option<Stored> {
    let first = parts.values().next()?;
    if first.shape.is_empty() || parts.values().any(|part| part.shape != first.shape) {
        return None;
    }
    let width = first.values.len();
    let mut values = match parts.len() == of {
        true => vec![0.0; of * width],
        false => rest()?,
    };
    if values.len() != of * width {
        return None;
    }
    for (index, part) in parts {
        values[index * width..(index + 1) * width].copy_from_slice(&part.values);
    }
    let mut shape = first.shape.clone();
    shape[0] *= of;
    Some(Stored { shape, values })
}

/// The norm of each row.
fn row_norms(weight: &Stored) -> Vec<f32> {
    let columns = weight.shape.last().copied().unwrap_or(1).max(1);
    let norm = |row: &[f32]| row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
    weight.values.chunks_exact(columns).map(norm).collect()
}
