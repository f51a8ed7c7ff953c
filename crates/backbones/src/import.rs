//! Pretrained weights by folder, file or hub name: timm's `vit_*` and `deit*`; Hugging Face's ViT, DeiT, DINOv2 (with
//! registers too), DINOv3, and the vision towers of CLIP and SigLIP.

mod family;
mod read;
mod rename;
mod shape;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::Value;
use wegeft::AdapterError;
use wegeft::site;
use wegeft::storage::{Names, Tensors, fill, problems};

use crate::pos_embed::{self, Resample};
use crate::vit::{Vit, VitConfig};

use family::Family;

/// Why a backbone could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file that cannot be read or does not fit.
    #[error(transparent)]
    File(#[from] AdapterError),
    /// A config that is missing, malformed or of something we do not implement.
    #[error("{path}: {message}")]
    Config {
        /// The config file.
        path: PathBuf,
        /// The field, what was found and what to do.
        message: String,
    },
    /// A picture size that was asked for and that the model cannot read.
    #[error("image_size {size} is no multiple of the patch size {patch_size} of {path}; choose one that is")]
    ImageSize {
        /// What was asked for, pixels.
        size: usize,
        /// The model's, pixels.
        patch_size: usize,
        /// The model.
        path: PathBuf,
    },
    /// A type of the weights that the device has no arithmetic in (bf16 on Vulkan, both halves on ndarray).
    #[error("this device does not compute in {asked}; load the weights as {fitting}")]
    Precision {
        /// What was asked for.
        asked: &'static str,
        /// What it computes in.
        fitting: &'static str,
    },
}

/// Mean and standard deviation per channel of pixels in 0..1 that a model was pretrained with.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Normalization {
    /// Subtracted.
    pub mean: [f32; 3],
    /// Divided by.
    pub std: [f32; 3],
}

impl Default for Normalization {
    /// 0.5 and 0.5: timm's AugReg and Google's ViT checkpoints.
    fn default() -> Self {
        Self {
            mean: [0.5; 3],
            std: [0.5; 3],
        }
    }
}

/// A pretrained model, and what its files say about it.
#[derive(Debug, Clone)]
pub struct Pretrained {
    /// The model; a head in the file is kept.
    pub model: Vit,
    /// Its shape.
    pub config: VitConfig,
    /// What its input is normalised with.
    pub normalization: Normalization,
}

/// Loads a vision transformer of any family above. `path` is a folder that holds `config.json`
/// and `model.safetensors`, or a .safetensors file beside a `config.json`. With `image_size` (pixels) other than
/// the checkpoint's, the position embeddings are interpolated as the checkpoint's own library does.
///
/// # Errors
/// A missing or malformed file, an architecture or field that is not implemented, a picture size that is no
/// multiple of the patch, and every missing, surplus or misshapen tensor at once.
pub fn load_vit(
    path: &Path,
    image_size: Option<usize>,
    drop_path: f64,
    device: &Device,
) -> Result<Pretrained, ImportError> {
    if path.is_file() && path.extension().is_none_or(|extension| extension != "safetensors") {
        return Err(ImportError::Config {
            path: path.to_path_buf(),
            message: "it is no .safetensors file; give one, or a folder with config.json and model.safetensors".into(),
        });
    }
    let (folder, weights) = if path.is_file() {
        (path.parent().unwrap_or(Path::new(".")), path.to_path_buf())
    } else {
        (path, path.join("model.safetensors"))
    };
    let config_path = folder.join("config.json");
    let error = |message: String| ImportError::Config {
        path: config_path.clone(),
        message,
    };
    let json = read_json(&config_path)?;
    let family = Family::of(&json).map_err(error)?;
    let json = family.settings(&json);
    let mut tensors =
        rename::rename(read::read(&weights, |name| family.reads(name))?, family, json).map_err(|problem| {
            AdapterError::Mismatch {
                path: weights.clone(),
                problems: problem,
            }
        })?;
    let mut config = shape::shape(json, family, &tensors)
        .map_err(error)?
        .with_drop_path(drop_path);
    if let Some(size) = image_size.filter(|size| *size != config.image_size) {
        if size == 0 || size % config.patch_size != 0 {
            return Err(ImportError::ImageSize {
                size,
                patch_size: config.patch_size,
                path: path.to_path_buf(),
            });
        }
        let (from, to) = (config.grid(), size / config.patch_size);
        config.image_size = size;
        if let Some(stored) = tensors.get_mut("pos_embed").filter(|_| from != to) {
            let resample = match family {
                Family::Timm => Resample::Antialiased,
                Family::Dinov2 if config.registers > 0 => Resample::Antialiased,
                _ => Resample::Plain,
            };
            let prefix = config.placed_prefix_tokens();
            stored.values = pos_embed::resize(&stored.values, prefix, from, to, resample);
            stored.shape = vec![1, prefix + to * to, config.d_model];
        }
    }
    let preprocessor = folder.join("preprocessor_config.json");
    let normalization = if preprocessor.is_file() {
        let json = read_json(&preprocessor)?;
        normalization(&json, "image_mean", "image_std", family).map_err(|message| ImportError::Config {
            path: preprocessor,
            message,
        })?
    } else {
        let own = json.get("pretrained_cfg").unwrap_or(json);
        normalization(own, "mean", "std", family).map_err(error)?
    };
    let model = from_tensors(&config, &tensors, &weights, device)?;
    Ok(Pretrained {
        model,
        config,
        normalization,
    })
}

pub(crate) fn read_json(path: &Path) -> Result<Value, ImportError> {
    let error = |message: String| ImportError::Config {
        path: path.to_path_buf(),
        message,
    };
    let text = std::fs::read_to_string(path).map_err(|e| error(format!("cannot read it ({e})")))?;
    serde_json::from_str(&text).map_err(|e| error(format!("not JSON ({e})")))
}

fn normalization(json: &Value, mean: &str, std: &str, family: Family) -> Result<Normalization, String> {
    let default = family.normalization();
    let three = |field: &str, default: [f32; 3]| match json.get(field) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => serde_json::from_value::<[f32; 3]>(value.clone())
            .map_err(|_| format!("field '{field}' is {value}; expected three numbers")),
    };
    let found = Normalization {
        mean: three(mean, default.mean)?,
        std: three(std, default.std)?,
    };
    match found.std.iter().all(|value| *value > 0.0) {
        true => Ok(found),
        false => Err(format!("field '{std}' is {:?}; each must be above 0", found.std)),
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
