//! Adapters that Hugging Face PEFT trained on transformers' models, under the module names of ours. Query, key and value
//! are one layer here: their LoRA factors become one pair of factors, side by side, and their factors of IA3 one vector.
//! Those of other methods stay apart, each on its block of the layer.

mod heads;
mod join;
mod parts;

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Device;
use serde_json::{Map, Value, json};
use wegeft::storage::{PREFIX, Stored, Tensors};
use wegeft::{AdapterFiles, Patterns};

use super::Pretrained;
use super::family::Family;
use super::rename::{Ours, ours};
use crate::own_ranks;
use crate::vit::{HeadPool, Vit};
use parts::{Part, Parts, blocks};

/// An adapter with this crate's module names, and the model that it fits.
#[derive(Debug, Clone)]
pub struct Translated {
    /// The model, with a head over what transformers' class reads if the adapter has one.
    pub model: Vit,
    /// Its files.
    pub files: AdapterFiles,
}

impl Pretrained {
    /// An adapter that PEFT trained on transformers' class of this model, with its modules renamed to this crate's names;
    /// `None` if it has these names already. Also an adapter that PEFT trained on timm's distilled model, which has two
    /// heads where this crate has one.
    ///
    /// # Errors
    /// Tensors that do not fit each other; a pattern that cannot be carried over; a head that is missing.
    pub fn translate_adapter(
        &self,
        config: &Map<String, Value>,
        tensors: &Tensors,
        device: &Device,
    ) -> Result<Option<Translated>, String> {
        let family = self.layout.family();
        if family == Family::Timm {
            return heads::of_timm(self, config, tensors, device);
        }
        let is_ours = |name: &String| {
            let name = name.strip_prefix(PREFIX).unwrap_or(name);
            ours(name, family) == Ours::Whole(name.to_string())
        };
        if tensors.keys().all(is_ours) {
            return Ok(None);
        }
        let mut model = self.model.clone();
        // The class with two heads, of which an adapter may train only one.
        let of_teacher = |name: &String| name.contains("cls_classifier.") || name.contains("distillation_classifier.");
        let with_teacher = model.dist_token.is_some() && tensors.keys().any(of_teacher);
        let (mut found, fields) = match tensors.keys().all(|name| is_ours(name) || heads::is_of_class(name)) {
            true => heads::renamed(config, tensors, family),
            false => {
                let mut translation = Translation::new(config, family, &self.model)?;
                for (name, tensor) in tensors {
                    translation.add(name, tensor.clone())?;
                }
                let found = translation.finished()?;
                if with_teacher {
                    translation.saved.insert("head".into());
                }
                (found, translation.config()?)
            }
        };
        if with_teacher {
            heads::complete(&mut found, &self.layout)?;
        }
        let head = found
            .get(&format!("{PREFIX}head.weight"))
            .map(|head| head.shape.clone());
        if let Some([classes, _]) = head.as_deref() {
            model = with_head_of_class(model, family, *classes, device);
            if model.head_pool() == Some(HeadPool::ClsDist) {
                heads::join(&mut found)?;
            }
        }
        Ok(Some(Translated {
            model,
            files: AdapterFiles::new(fields, found),
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

/// What the name of a tensor says.
struct Place {
    /// Their name of the module.
    theirs: String,
    /// Ours.
    ours: String,
    /// Which part of how many, if ours is fused.
    part: Option<(usize, usize)>,
    /// The rest of the name.
    suffix: String,
    /// False for a tensor of the layer itself.
    adapts: bool,
}

struct Translation<'a> {
    given: &'a Map<String, Value>,
    /// Those of `given`, which are matched with transformers' names.
    patterns: Patterns,
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
    /// `rank_pattern` and `alpha_pattern` under our names.
    ranks: Map<String, Value>,
    alphas: Map<String, Value>,
    /// Modules whose parts stay apart, as `fused` lists them.
    apart: Vec<Value>,
}

/// What the names of the tensors of PEFT's methods start with, after the module.
const METHODS: [&str; 11] = [
    "lora_",
    "ia3_",
    "hira_",
    "hada_",
    "lokr_",
    "oft_",
    "boft_",
    "vera_",
    "miss_",
    "ln_tuning_layers",
    "wegeft_",
];

impl<'a> Translation<'a> {
    fn new(given: &'a Map<String, Value>, family: Family, model: &'a Vit) -> Result<Self, String> {
        let patterns = own_ranks::patterns(given);
        let patterns = patterns.map_err(|e| format!("{} or {}: {e}", own_ranks::FIELDS[0], own_ranks::FIELDS[1]))?;
        Ok(Self {
            given,
            patterns,
            family,
            model,
            whole: Tensors::new(),
            fused: BTreeMap::new(),
            targets: BTreeSet::new(),
            feedforward: BTreeSet::new(),
            saved: BTreeSet::new(),
            ranks: Map::new(),
            alphas: Map::new(),
            apart: Vec::new(),
        })
    }

    /// Takes the name of a tensor apart.
    fn place(&self, name: &str) -> Result<Place, String> {
        let short = name.strip_prefix(PREFIX).unwrap_or(name);
        let short = short
            .replace(".modules_to_save.", ".")
            .replace(".default.", ".")
            .replace(".base_layer.", ".");
        let short = short.strip_suffix(".default").unwrap_or(&short);
        let is_of_method = |after: &str| METHODS.iter().any(|start| after.starts_with(start));
        let mut dots = short.match_indices('.').map(|(dot, _)| dot);
        let own = dots.find(|dot| is_of_method(&short[dot + 1..]));
        let dot = own.or_else(|| short.rfind('.'));
        let dot = dot.ok_or_else(|| format!("'{name}' is no tensor of an adapter"))?;
        let (theirs, suffix) = (&short[..dot], &short[dot + 1..]);
        // With the dot before a parameter's name, which ends some of the names that are replaced.
        let (ours, part) = match ours(&format!("{theirs}."), self.family) {
            Ours::Whole(name) => (name, None),
            Ours::Part { name, index, of: 3 } => (name, Some((index, 3))),
            // A plain MLP has the name of a gated one's second half.
            Ours::Part { name, index, of } => match self.model.blocks.first().is_some_and(|block| block.mlp.is_gated())
            {
                true => (name, Some((index, of))),
                false => (name, None),
            },
        };
        Ok(Place {
            ours: ours.trim_end_matches('.').to_string(),
            part,
            suffix: suffix.to_string(),
            adapts: own.is_some(),
            theirs: theirs.to_string(),
        })
    }

    fn add(&mut self, name: &str, tensor: Stored) -> Result<(), String> {
        if name.contains(".original_module.") {
            return Ok(());
        }
        if name.starts_with("base_model.") && !name.starts_with(PREFIX) {
            // VeRA's projections, which all modules share.
            self.whole.insert(name.to_string(), tensor);
            return Ok(());
        }
        let place = self.place(name)?;
        if place.adapts {
            self.targets.insert(place.ours.clone());
        } else if !is_bias_of_method(self.given, &place.suffix) {
            self.saved.insert(place.ours.clone());
        }
        match place.part {
            None => {
                if place.adapts {
                    self.note(&place.theirs, &place.ours, &place.suffix, &tensor)?;
                }
                self.whole
                    .insert(format!("{PREFIX}{}.{}", place.ours, place.suffix), tensor);
            }
            Some((index, of)) => {
                let (_, parts) = self.fused.entry(place.ours).or_insert_with(|| (of, Parts::new()));
                let part = parts.entry(index).or_insert_with(|| Part {
                    theirs: place.theirs,
                    tensors: BTreeMap::new(),
                });
                part.tensors.insert(place.suffix, tensor);
            }
        }
        Ok(())
    }

    /// Notes what the config says of the module `theirs`, `ours` here: rank and alpha, and whether IA3 scales its input.
    fn note(&mut self, theirs: &str, ours: &str, suffix: &str, tensor: &Stored) -> Result<(), String> {
        let first = tensor.shape.first().copied().unwrap_or(0);
        if suffix == "ia3_l" && first == 1 {
            self.feedforward.insert(ours.to_string());
        }
        if suffix == "lora_A.weight" {
            self.ranks.insert(ours.to_string(), json!(first));
            self.alphas.insert(ours.to_string(), json!(self.alpha(theirs)?));
        } else if !suffix.starts_with("lora_") {
            let (rank, alpha) = self.own(theirs)?;
            self.ranks.extend(rank.map(|rank| (ours.to_string(), json!(rank))));
            self.alphas.extend(alpha.map(|alpha| (ours.to_string(), json!(alpha))));
        }
        Ok(())
    }

    /// Rank and alpha that the patterns give a module, by its name in transformers.
    fn own(&self, module: &str) -> Result<(Option<usize>, Option<f64>), String> {
        let own = own_ranks::of(&self.patterns, &[module.to_string()]).map_err(|e| e.to_string())?;
        Ok(own.into_iter().next().unwrap_or_default())
    }

    /// `lora_alpha` of a module.
    fn alpha(&self, module: &str) -> Result<f64, String> {
        let all = || self.given.get("lora_alpha").and_then(Value::as_f64).unwrap_or(8.0);
        Ok(self.own(module)?.1.unwrap_or_else(all))
    }

    fn rslora(&self) -> bool {
        self.given.get("use_rslora").and_then(Value::as_bool).unwrap_or(false)
    }

    /// All tensors under our names.
    fn finished(&mut self) -> Result<Tensors, String> {
        let mut tensors = std::mem::take(&mut self.whole);
        for (module, (of, mut parts)) in std::mem::take(&mut self.fused) {
            match self.stays_apart(&parts) {
                true => self.put_apart(&module, of, &mut parts, &mut tensors)?,
                false => self.join_ranks(&module, &mut parts)?,
            }
            let suffixes: BTreeSet<&String> = parts.values().flat_map(|part| part.tensors.keys()).collect();
            for suffix in suffixes {
                let found = parts
                    .iter()
                    .filter_map(|(index, part)| Some((*index, part.tensors.get(suffix)?)));
                let found: BTreeMap<usize, &Stored> = found.collect();
                let joined = self.joined(&module, suffix, of, &found).ok_or_else(|| {
                    format!(
                        "the parts of '{module}' (query, key, value, or gate and up) have '{suffix}' of shapes that do not fit \
                         each other or the layer"
                    )
                })?;
                tensors.insert(format!("{PREFIX}{module}.{suffix}"), joined);
            }
        }
        Ok(tensors)
    }

    /// adapter_config.json under our names. Which modules have what is known from the tensors, so patterns are not needed.
    ///
    /// # Errors
    /// An entry of AdaLoRA's `rank_pattern` that names no module.
    fn config(&self) -> Result<Map<String, Value>, String> {
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
        if !self.apart.is_empty() {
            fields.insert("fused".into(), json!(self.apart));
        }
        if !self.feedforward.is_empty() || fields.contains_key("feedforward_modules") {
            fields.insert("feedforward_modules".into(), json!(self.feedforward));
        }
        let saved: Vec<&String> = self.saved.iter().filter(|name| *name != "head_dist").collect();
        if !saved.is_empty() {
            fields.insert("modules_to_save".into(), json!(saved));
        }
        for (field, values) in own_ranks::FIELDS.into_iter().zip([&self.ranks, &self.alphas]) {
            if !values.is_empty() || fields.contains_key(field) {
                fields.insert(field.into(), json!(values));
            }
        }
        if self.given.get("peft_type").and_then(Value::as_str) == Some("ADALORA") {
            fields.insert("rank_pattern".into(), Value::Object(self.left_by_adalora()?));
        }
        Ok(fields)
    }

    /// AdaLoRA's `rank_pattern`, whose keys are names of tensors, under our names.
    fn left_by_adalora(&self) -> Result<Map<String, Value>, String> {
        let given = self.given.get("rank_pattern").and_then(Value::as_object);
        let renamed = given.into_iter().flatten().map(|(key, left)| {
            let place = self.place(key)?;
            let block = place.part.map(|(index, of)| format!(".{}", blocks(of)[index]));
            let block = block.unwrap_or_default();
            Ok((format!("{}{block}.{}", place.ours, place.suffix), left.clone()))
        });
        renamed.collect()
    }
}

/// True for a bias that the method trains itself, beside its factors.
fn is_bias_of_method(config: &Map<String, Value>, parameter: &str) -> bool {
    let trains = config.get("bias").and_then(Value::as_str).unwrap_or("none");
    parameter == "bias" && trains != "none"
}
