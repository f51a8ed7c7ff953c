//! Pretrained weights by folder, file or hub name: timm's `vit_*` and `deit*`; Hugging Face's ViT, DeiT, DINOv2 (with
//! registers too), DINOv3, and the vision towers of CLIP and SigLIP.

mod adapter;
pub(crate) mod declared;
mod export;
pub(crate) mod family;
mod lora;
mod read;
pub(crate) mod rename;
mod shape;
mod timm;
mod two_heads;

use std::path::Path;

use burn::tensor::Device;
use serde_json::Value;
use wegeft::AdapterError;
use wegeft::site;
use wegeft::storage::{Names, Tensors, fill, problems};

pub use crate::error::ImportError;
use crate::json::read_json;
pub use crate::normalization::Normalization;
use crate::preprocess::Preprocessing;
use crate::vit::{Vit, VitConfig};

pub use adapter::Translated;
use declared::flag;
pub use export::{Exported, Layout};
use family::Family;
use read::Files;
use rename::Renamed;
use shape::{Misfit, resized, shape};

/// A pretrained model, and what its files say about it.
#[derive(Debug, Clone)]
pub struct Pretrained {
    /// The model; a head in the file is kept.
    pub model: Vit,
    /// Its shape.
    pub config: VitConfig,
    /// Mean and standard deviation that its input is normalized with.
    pub normalization: Normalization,
    /// How images are preprocessed for the model's image size; `None` if no file says so and the model's library is unknown.
    pub preprocessing: Option<Preprocessing>,
    /// Names of the head's classes, if the files list them.
    pub labels: Vec<String>,
    /// What the head's outputs become.
    pub scores: Scores,
    /// Names of the tensors in the files, to write changed ones back.
    pub layout: Layout,
}

/// What the outputs of a head become, as in transformers' pipeline for image classification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// One class per image: their softmax.
    Softmax,
    /// Any number of classes per image, or only one class: the sigmoid of each.
    Sigmoid,
    /// Regression: the outputs themselves.
    Outputs,
}

impl Scores {
    /// Those of a head with `count` outputs, by config.json's `problem_type`.
    fn of(json: &Value, family: Family, count: usize) -> Self {
        match json["problem_type"].as_str() {
            // timm always takes the softmax.
            _ if family == Family::Timm => Self::Softmax,
            Some("regression") => Self::Outputs,
            Some("multi_label_classification") => Self::Sigmoid,
            _ if count == 1 => Self::Sigmoid,
            _ => Self::Softmax,
        }
    }
}

/// [`load_vit_for`] square images, or with the image size of the checkpoint.
///
/// # Errors
/// See [`load_vit_for`].
pub fn load_vit(
    path: &Path,
    image_size: Option<usize>,
    drop_path: f64,
    device: &Device,
) -> Result<Pretrained, ImportError> {
    load_vit_for(path, image_size.map(|side| [side, side]), drop_path, device)
}

/// Loads a vision transformer of any family above. `path` is a folder that holds `config.json` and `model.safetensors`
/// (or its shards with their index, or `pytorch_model.bin`), or a weights file beside a `config.json`. With an `image`
/// `[height, width]` (pixels) other than the checkpoint's, the position embeddings are interpolated as the checkpoint's own
/// library does.
///
/// # Errors
/// A missing or malformed file, an architecture or field that is not implemented, an image size that is not a multiple of
/// the patch, and a list of all tensors that are missing, unexpected or of another shape.
pub fn load_vit_for(
    path: &Path,
    image: Option<[usize; 2]>,
    drop_path: f64,
    device: &Device,
) -> Result<Pretrained, ImportError> {
    let folder = match path.is_file() {
        true => path.parent().unwrap_or(Path::new(".")),
        false => path,
    };
    let is_weights = |extension: &std::ffi::OsStr| extension == "safetensors" || extension == "bin";
    if path.is_file() && !path.extension().is_some_and(is_weights) {
        return Err(ImportError::Config {
            path: path.to_path_buf(),
            message: "it is not a .safetensors file; give one, or a folder with config.json and model.safetensors"
                .into(),
        });
    }
    let config_path = folder.join("config.json");
    let error = |message: String| ImportError::Config {
        path: config_path.clone(),
        message,
    };
    let json = read_json(&config_path)?;
    let family = Family::of(&json).map_err(error)?;
    let settings = family.settings(&json);
    let declared = match family {
        Family::Timm => timm::declared(settings),
        _ => declared::hugging_face(settings, family),
    }
    .map_err(error)?;
    let files = Files::find(path)?;
    let weights = files.first().to_path_buf();
    let mismatch = |problems: String| AdapterError::Mismatch {
        path: weights.clone(),
        problems,
    };
    let left_out = left_out_biases(settings, family).map_err(error)?;
    let zero = |name: &str, part: usize| name.ends_with("attn.qkv.bias") && left_out[part];
    let Renamed { mut tensors, sources } =
        rename::rename(files.read(|name| family.reads(name))?, family, zero).map_err(mismatch)?;
    let config = shape(&declared, family, &mut tensors).map_err(|misfit| match misfit {
        Misfit::Config(message) => error(message),
        Misfit::Weights(message) => mismatch(message).into(),
    })?;
    let mut config = config.with_drop_path(drop_path);
    if let Some(image) = image.filter(|image| *image != config.image()) {
        config = resized(config, image, declared.resample, &mut tensors).map_err(|message| ImportError::ImageSize {
            message,
            path: path.to_path_buf(),
        })?;
    }
    let said = Preprocessing::of(folder, &json, family)?;
    let preprocessing = match said {
        Some(said) => Some(said.sized(config.image())),
        None => Preprocessing::default_of(family, config.image()),
    };
    let normalization = preprocessing.map(|preprocessing| preprocessing.normalization);
    let normalization = normalization.unwrap_or_default();
    let model = from_tensors(&config, &tensors, &weights, device)?;
    Ok(Pretrained {
        model,
        labels: labels(&json, config.num_classes),
        scores: Scores::of(&json, family, config.num_classes),
        normalization,
        preprocessing,
        config,
        layout: Layout::new(files, family, json, sources, normalization),
    })
}

/// Which of query, key and value have no bias according to DINOv3's fields.
fn left_out_biases(json: &Value, family: Family) -> Result<[bool; 3], String> {
    let mut left_out = [false; 3];
    if family == Family::Dinov3 {
        for (left_out, (field, default)) in
            left_out
                .iter_mut()
                .zip([("query_bias", true), ("key_bias", false), ("value_bias", true)])
        {
            *left_out = !flag(json, field)?.unwrap_or(default);
        }
    }
    Ok(left_out)
}

/// The names of a head's `count` classes: Hugging Face's `id2label`, timm's `label_names`. None if they do not fit it.
fn labels(json: &Value, count: usize) -> Vec<String> {
    // A label may be a number.
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let of_timm = || {
        let own = json
            .get("label_names")
            .or_else(|| json.get("pretrained_cfg")?.get("label_names"))?;
        own.as_array()?.iter().map(text).collect::<Option<Vec<_>>>()
    };
    let of_hugging_face = || {
        let names = json.get("id2label")?.as_object()?;
        (0..count)
            .map(|id| names.get(&id.to_string()).and_then(text))
            .collect::<Option<Vec<_>>>()
    };
    let labels = of_hugging_face().or_else(of_timm).unwrap_or_default();
    match labels.len() == count {
        true => labels,
        false => Vec::new(),
    }
}

/// A model of shape `config` with `tensors` under timm's names; `path` names the file in errors.
///
/// # Errors
/// Every missing, surplus or misshapen tensor at once.
pub fn from_tensors(config: &VitConfig, tensors: &Tensors, path: &Path, device: &Device) -> Result<Vit, ImportError> {
    let model = config.init(device);
    let names = names(&model);
    let problems = problems(&names, tensors);
    if !problems.is_empty() {
        return Err(AdapterError::Mismatch {
            path: path.to_path_buf(),
            problems: problems.join("; "),
        }
        .into());
    }
    Ok(fill(model, &names, tensors))
}

/// timm's name of every parameter of `model`, by path.
pub fn names(model: &Vit) -> Names {
    site::params(model)
        .into_iter()
        .map(|param| {
            // LayerScale's own field is called gamma in timm too.
            let name = if param.path.contains(".ls") {
                param.path.clone()
            } else {
                param.torch_name()
            };
            (param.path.clone(), (param, name))
        })
        .collect()
}
