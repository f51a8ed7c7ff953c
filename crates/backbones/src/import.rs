//! Pretrained weights: timm `vit_*` safetensors, Hugging Face `ViTModel`, `ViTForImageClassification` and
//! `Dinov2Model` folders.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::Value;
use wegeft::AdapterError;
use wegeft::site;
use wegeft::storage::{Names, Stored, Tensors, fill, problems, read_tensors};

use crate::pos_embed::{self, Resample};
use crate::vit::{Pool, Vit, VitConfig};

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

/// Loads a vision transformer: timm's, Hugging Face ViT's or DINOv2's. `path` is a folder that holds `config.json`
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
    let mut tensors = rename(read_tensors(&weights)?).map_err(|problem| AdapterError::Mismatch {
        path: weights.clone(),
        problems: problem,
    })?;
    let mut config = config(&json, &tensors).map_err(error)?.with_drop_path(drop_path);
    if let Some(size) = image_size.filter(|size| *size != config.image_size) {
        if size == 0 || size % config.patch_size != 0 {
            return Err(error(format!(
                "image_size {size} is no multiple of the model's patch size {}",
                config.patch_size
            )));
        }
        let (from, to) = (config.grid(), size / config.patch_size);
        config.image_size = size;
        if let Some(stored) = tensors.get_mut("pos_embed").filter(|_| from != to) {
            let resample = if json.get("architecture").is_some() {
                Resample::Antialiased
            } else {
                Resample::Plain
            };
            stored.values = pos_embed::resize(&stored.values, config.d_model, from, to, resample);
            stored.shape = vec![1, 1 + to * to, config.d_model];
        }
    }
    let preprocessor = folder.join("preprocessor_config.json");
    let normalization = if preprocessor.is_file() {
        normalization(&read_json(&preprocessor)?, "image_mean", "image_std")
    } else {
        let own = json.get("pretrained_cfg").unwrap_or(&json);
        normalization(own, "mean", "std")
    }
    .map_err(error)?;
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

fn normalization(json: &Value, mean: &str, std: &str) -> Result<Normalization, String> {
    let default = Normalization::default();
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

fn config(json: &Value, tensors: &Tensors) -> Result<VitConfig, String> {
    let timm = json.get("architecture").and_then(Value::as_str);
    let kind = timm
        .or_else(|| json.get("model_type").and_then(Value::as_str))
        .unwrap_or("");
    let known = matches!(kind, "vit" | "dinov2") || kind.starts_with("vit_");
    if !known {
        return Err(format!(
            "field 'model_type' (or timm's 'architecture') is '{kind}'; implemented are vit, dinov2 and timm's vit_*"
        ));
    }
    if json.get("use_swiglu_ffn").and_then(Value::as_bool) == Some(true) {
        return Err("field 'use_swiglu_ffn' is true, which is not implemented; use a model with a GELU MLP".into());
    }
    let activation = json.get("hidden_act").and_then(Value::as_str).unwrap_or("gelu");
    if activation != "gelu" {
        return Err(format!("field 'hidden_act' is '{activation}'; implemented is gelu"));
    }
    let shape = |name: &str| {
        tensors
            .get(name)
            .map(|t| t.shape.clone())
            .ok_or_else(|| format!("the weights beside it lack '{name}'"))
    };
    let patch = shape("patch_embed.proj.weight")?;
    let (d_model, patch_size) = match patch[..] {
        [d_model, 3, side, other] if side == other => (d_model, side),
        _ => {
            return Err(format!(
                "'patch_embed.proj.weight' has shape {patch:?}, expected [d_model, 3, p, p]"
            ));
        }
    };
    let tokens = shape("pos_embed")?.get(1).copied().unwrap_or_default();
    let grid = (tokens.saturating_sub(1) as f64).sqrt().round() as usize;
    if grid * grid + 1 != tokens {
        return Err(format!(
            "'pos_embed' has {tokens} tokens, expected one CLS token and a square grid"
        ));
    }
    let depth = (0..)
        .take_while(|i| tensors.contains_key(&format!("blocks.{i}.norm1.weight")))
        .count();
    let heads = match json.get("num_attention_heads").or_else(|| json.get("num_heads")) {
        Some(heads) => heads.as_u64().unwrap_or(0) as usize,
        // timm's config.json does not say: 16 heads from ViT-H on, before that one per 64 channels.
        None if d_model >= 1280 => 16,
        None => d_model / 64,
    };
    if heads == 0 || d_model % heads != 0 {
        return Err(format!(
            "field 'num_attention_heads' is {heads}, which does not divide d_model {d_model}"
        ));
    }
    let hidden = shape("blocks.0.mlp.fc1.weight")?[0];
    let pool = match json.get("global_pool").and_then(Value::as_str) {
        None | Some("token") => Pool::Cls,
        Some("avg") => Pool::Mean,
        Some(other) => {
            return Err(format!(
                "field 'global_pool' is '{other}'; implemented are token and avg"
            ));
        }
    };
    let eps = json.get("layer_norm_eps").and_then(Value::as_f64).unwrap_or(1e-6);
    Ok(VitConfig::new(grid * patch_size, patch_size, d_model, depth, heads)
        .with_mlp_dim(Some(hidden))
        .with_num_classes(tensors.get("head.weight").map_or(0, |t| t.shape[0]))
        .with_layer_scale(tensors.contains_key("blocks.0.ls1.gamma"))
        .with_pool(pool)
        .with_fc_norm(tensors.contains_key("fc_norm.weight"))
        .with_layer_norm_eps(eps))
}

/// Hugging Face names to timm's; query, key and value become one fused weight.
fn rename(tensors: Tensors) -> Result<Tensors, String> {
    let mut renamed = Tensors::new();
    let mut qkv: std::collections::BTreeMap<String, [Option<Stored>; 3]> = Default::default();
    for (name, tensor) in tensors {
        let short = name.trim_start_matches("vit.").trim_start_matches("dinov2.");
        if short.ends_with("mask_token") || short.starts_with("pooler.") {
            continue; // of pretraining only; no forward pass reads them
        }
        let short = short
            .replace("embeddings.patch_embeddings.projection", "patch_embed.proj")
            .replace("embeddings.cls_token", "cls_token")
            .replace("embeddings.position_embeddings", "pos_embed")
            .replace("encoder.layer.", "blocks.")
            .replace("attention.output.dense", "attn.proj")
            .replace("intermediate.dense", "mlp.fc1")
            .replace("layernorm_before", "norm1")
            .replace("layernorm_after", "norm2")
            .replace("layer_scale1.lambda1", "ls1.gamma")
            .replace("layer_scale2.lambda1", "ls2.gamma")
            .replace("classifier.", "head.");
        let short = if short.starts_with("layernorm.") {
            short.replace("layernorm", "norm")
        } else {
            short
        };
        let short = if short.starts_with("blocks.") {
            short.replace("output.dense", "mlp.fc2")
        } else {
            short
        };
        let parts = ["query", "key", "value"];
        let part = parts
            .iter()
            .position(|part| short.contains(&format!("attention.attention.{part}.")));
        match part {
            Some(index) => {
                let fused = short.replace(&format!("attention.attention.{}", parts[index]), "attn.qkv");
                qkv.entry(fused).or_default()[index] = Some(tensor);
            }
            None => {
                renamed.insert(short, tensor);
            }
        }
    }
    for (name, parts) in qkv {
        let kinds = ["query", "key", "value"];
        let lost = (0..3).find(|index| parts[*index].as_ref().is_none_or(|part| part.shape.is_empty()));
        if let Some(index) = lost {
            return Err(format!("missing the '{}' part of '{name}'", kinds[index]));
        }
        let parts: Vec<Stored> = parts.into_iter().flatten().collect();
        let mut shape = parts[0].shape.clone();
        shape[0] = parts.iter().map(|part| part.shape[0]).sum();
        renamed.insert(
            name,
            Stored {
                shape,
                values: parts.into_iter().flat_map(|part| part.values).collect(),
            },
        );
    }
    Ok(renamed)
}
