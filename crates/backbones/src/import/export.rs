//! A changed model under the names and in the layout of the files that it was read from, so that transformers and timm
//! load it as they load those.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use wegeft::AdapterError;
use wegeft::storage::{Stored, Tensors, collect};

use super::family::{Family, unwrapped};
use super::read::Files;
use super::rename::{self, Source};
use super::two_heads::{cls_head, two_heads};
use super::{names, timm};
use crate::error::ImportError;
use crate::normalization::Normalization;
use crate::vit::{HeadPool, Vit, VitConfig};

/// The files that a model was read from, and which of their tensors became which of the model's.
#[derive(Debug, Clone)]
pub struct Layout {
    files: Files,
    family: Family,
    json: Value,
    sources: BTreeMap<String, Vec<Source>>,
    normalization: Normalization,
}

/// What a folder of a changed model holds.
#[derive(Debug, Clone)]
pub struct Exported {
    /// model.safetensors
    pub tensors: Tensors,
    /// config.json
    pub config: Value,
    /// Files that are to be copied as they are.
    pub copied: Vec<PathBuf>,
    /// What the library that the model was read from does not load of it.
    pub note: Option<String>,
}

/// Files beside the weights that say how images are prepared.
const PREPROCESSING: [&str; 2] = ["preprocessor_config.json", "processor_config.json"];

impl Layout {
    pub(super) fn new(
        files: Files,
        family: Family,
        json: Value,
        sources: BTreeMap<String, Vec<Source>>,
        normalization: Normalization,
    ) -> Self {
        Self {
            files,
            family,
            json,
            sources,
            normalization,
        }
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// The folder of the files.
    pub(super) fn folder(&self) -> PathBuf {
        self.files.first().parent().map(PathBuf::from).unwrap_or_default()
    }

    /// What stands before the names of the blocks in transformers' class with a head.
    pub(super) fn root(&self) -> &'static str {
        self.family.base_prefix(&self.json)
    }

    /// The tensor that our `name` is read from as the files have it; `None` if they have none of it.
    ///
    /// # Errors
    /// The files cannot be read any more.
    pub(super) fn stored(&self, name: &str) -> Result<Option<Stored>, AdapterError> {
        let Some([source]) = self.sources.get(name).map(Vec::as_slice) else {
            return Ok(None);
        };
        Ok(self.files.read(|found| found == source.name)?.remove(&source.name))
    }

    /// `model`, of shape `config`, as the files of a folder in the layout that it was read from, so that the same library
    /// (transformers or timm) loads it; `labels` name the head's classes.
    /// A Hugging Face model with a head that no class of transformers has (CLIP's CLS token, SigLIP's pooling by attention)
    /// becomes one of timm's.
    ///
    /// # Errors
    /// The files cannot be read any more, or neither library can describe the model.
    pub fn export(&self, model: &Vit, config: &VitConfig, labels: &[String]) -> Result<Exported, ImportError> {
        let ours = collect(model, &names(model));
        let folder = self.folder();
        let copied = PREPROCESSING
            .iter()
            .map(|name| folder.join(name))
            .filter(|path| path.is_file());
        let error = |message: String| ImportError::Config {
            path: folder.join("config.json"),
            message,
        };
        let config = &VitConfig {
            head_pool: model.head_pool(),
            num_classes: classes(model),
            ..config.clone()
        };
        let has_head = model.head.is_some();
        let as_timm = match self.family {
            Family::Timm => !timm::is_known(&self.json),
            Family::Clip | Family::Siglip => has_head && config.head_pool.is_none(),
            _ => false,
        };
        if as_timm {
            let (tensors, json) =
                timm::described(ours, config, &self.json, self.normalization, labels).map_err(error)?;
            return Ok(Exported {
                tensors,
                config: json,
                copied: Vec::new(),
                note: (self.family != Family::Timm).then(|| {
                    "no class of transformers has this model with such a head: the folder is in timm's layout, which timm and \
                     this library load"
                        .into()
                }),
            });
        }
        let (head, body): (Tensors, Tensors) = ours.into_iter().partition(|(name, _)| name.starts_with("head."));
        let mut tensors = self.restored(&body, config).map_err(error)?;
        let mut json = self.json.clone();
        self.resize(&mut json, config);
        if self.family == Family::Timm {
            tensors.extend(timm::heads(head, config));
            timm::describe_head(&mut json, classes(model), labels);
        } else if has_head {
            let (class, heads) = match self.one_head(&head, config) {
                Some(heads) => (Some("DeiTForImageClassification"), heads),
                None => (self.class(config, &json), self.heads(head, config)),
            };
            let prefix = self.family.base_prefix(&json);
            let prefixed = |name: String| match name.starts_with(prefix) || is_head(&name) {
                true => name,
                false => format!("{prefix}{name}"),
            };
            tensors = tensors
                .into_iter()
                .map(|(name, tensor)| (prefixed(name), tensor))
                .collect();
            tensors.retain(|name, _| !is_head(name));
            tensors.extend(heads);
            describe_classes(&mut json, class, classes(model), labels);
        }
        Ok(Exported {
            tensors,
            config: json,
            copied: copied.collect(),
            note: (has_head && self.family == Family::Dinov3).then(|| {
                "transformers has no class of DINOv3 with a head: it loads the backbone and leaves the head out; this \
                 library loads both"
                    .into()
            }),
        })
    }

    /// All tensors of the files, without wrappers in their names, with those of `ours` in place of the old ones.
    fn restored(&self, ours: &Tensors, config: &VitConfig) -> Result<Tensors, String> {
        let mut tensors = self.files.read_floats().map_err(|e| e.to_string())?;
        let wrapped = rename::wrapped(&tensors, self.family)?;
        for (name, tensor) in ours {
            let sources = self.sources.get(name).map_or(&[][..], Vec::as_slice);
            let mut written = 0;
            for source in sources {
                let Some(theirs) = tensors.get_mut(&source.name) else {
                    return Err(format!("'{}' is not in the weights any more", source.name));
                };
                written += source.ours.len();
                if name == "pos_embed" && tensor.values.len() != theirs.values.len() {
                    // Interpolated for another image size.
                    let leading = theirs.shape.len().saturating_sub(2);
                    theirs.shape.truncate(leading);
                    theirs
                        .shape
                        .extend([tensor.values.len() / config.d_model, config.d_model]);
                    theirs.values.clone_from(&tensor.values);
                    written = tensor.values.len();
                    continue;
                }
                let place = source.theirs..source.theirs + source.ours.len();
                theirs.values[place].copy_from_slice(&tensor.values[source.ours.clone()]);
            }
            let left_out = |at: usize| !sources.iter().any(|source| source.ours.contains(&at));
            if written < tensor.values.len()
                && (0..tensor.values.len()).any(|at| left_out(at) && tensor.values[at] != 0.0)
            {
                return Err(format!(
                    "a part of '{name}' was trained that the files have no place for; keep the adapter beside this backbone"
                ));
            }
        }
        Ok(tensors
            .into_iter()
            .map(|(name, tensor)| (unwrapped(&wrapped.without(&name)).to_string(), tensor))
            .collect())
    }

    /// Writes the image size of `config` into `json` if it is another one.
    fn resize(&self, json: &mut Value, config: &VitConfig) {
        let [height, width] = config.image();
        let size = match height == width {
            true => json!(height),
            false => json!([height, width]),
        };
        let settings = match self.family {
            Family::Timm => return timm::describe_size(json, config),
            Family::Clip | Family::Siglip if json.get("vision_config").is_some() => &mut json["vision_config"],
            _ => json,
        };
        if let Some(settings) = settings.as_object_mut() {
            settings.insert("image_size".into(), size);
        }
    }

    /// transformers' class of the model with its head.
    fn class(&self, config: &VitConfig, json: &Value) -> Option<&'static str> {
        Some(match self.family {
            Family::Vit => "ViTForImageClassification",
            Family::Deit if config.dist_token => "DeiTForImageClassificationWithTeacher",
            Family::Deit => "DeiTForImageClassification",
            Family::Dinov2 if json["model_type"] == "dinov2_with_registers" => {
                "Dinov2WithRegistersForImageClassification"
            }
            Family::Dinov2 => "Dinov2ForImageClassification",
            Family::Clip => "CLIPForImageClassification",
            Family::Siglip => "SiglipForImageClassification",
            // transformers has none; the head is kept for this library.
            Family::Dinov3 | Family::Timm => return None,
        })
    }

    /// The head of a DeiT that never had one over the distillation token, as transformers' class without a teacher has it:
    /// over the CLS token only. `None` for other models, and if the head reads both tokens.
    fn one_head(&self, head: &Tensors, config: &VitConfig) -> Option<Tensors> {
        let may_be = self.family == Family::Deit
            && config.head_pool == Some(HeadPool::ClsDist)
            && !self.sources.contains_key("head_dist.weight");
        let of_cls = may_be.then(|| cls_head(head)).flatten()?;
        let named = |(name, tensor): (String, Stored)| (name.replace("head.", "classifier."), tensor);
        Some(of_cls.into_iter().map(named).collect())
    }

    /// The head of `model` under the names of transformers' class with such a head, or of timm; `None` if there is no such
    /// class.
    pub(super) fn heads_of_class(&self, head: Tensors, model: &Vit, config: &VitConfig) -> Option<Tensors> {
        let config = VitConfig {
            head_pool: model.head_pool(),
            ..config.clone()
        };
        let reads_features = config.head_pool.is_none();
        match self.family {
            Family::Clip | Family::Siglip if reads_features => None,
            Family::Dinov3 => None,
            Family::Timm => Some(timm::heads(head, &config)),
            _ => Some(match self.one_head(&head, &config) {
                Some(heads) => heads,
                None => self.heads(head, &config),
            }),
        }
    }

    /// The head under the names that the class has for it.
    fn heads(&self, head: Tensors, config: &VitConfig) -> Tensors {
        match self.family {
            Family::Deit if config.dist_token => two_heads(head, config, ["cls_classifier", "distillation_classifier"]),
            Family::Dinov3 => head,
            _ => head
                .into_iter()
                .map(|(name, mut tensor)| {
                    if name == "head.weight" && self.family == Family::Dinov2 && config.head_pool.is_none() {
                        // That class reads the mean of the patches too: with weight 0.
                        tensor = upcast(&tensor);
                    }
                    (name.replace("head.", "classifier."), tensor)
                })
                .collect(),
        }
    }
}

/// As many columns of zeros beside the columns.
fn upcast(tensor: &Stored) -> Stored {
    let columns = tensor.shape[1];
    Stored {
        shape: vec![tensor.shape[0], 2 * columns],
        values: (tensor.values.chunks_exact(columns))
            .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, columns)))
            .collect(),
    }
}

fn classes(model: &Vit) -> usize {
    model.head.as_ref().map_or(0, |head| head.weight.lazy_shape()[1])
}

fn is_head(name: &str) -> bool {
    ["classifier.", "cls_classifier.", "distillation_classifier."]
        .iter()
        .any(|head| name.starts_with(head))
}

/// Names the class and its labels in a Hugging Face config.json.
fn describe_classes(json: &mut Value, class: Option<&str>, count: usize, labels: &[String]) {
    let Some(fields) = json.as_object_mut() else {
        return;
    };
    if let Some(class) = class {
        fields.insert("architectures".into(), json!([class]));
    }
    let label = |id: usize| labels.get(id).cloned().unwrap_or_else(|| format!("LABEL_{id}"));
    let id2label: Map<String, Value> = (0..count).map(|id| (id.to_string(), json!(label(id)))).collect();
    let label2id: Map<String, Value> = (0..count).map(|id| (label(id), json!(id))).collect();
    fields.insert("id2label".into(), Value::Object(id2label));
    fields.insert("label2id".into(), Value::Object(label2id));
    fields.shift_remove("num_labels");
}
