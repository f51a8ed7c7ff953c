//! What a config.json says about a model and its tensors do not show.

use serde_json::Value;

use super::family::Family;
use crate::pos_embed::Resample;
use crate::vit::{Activation, Pool};

/// What the tensors do not show.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Declared {
    /// Height and width of the image, pixels; `None` where only the position embeddings tell.
    pub(super) image: Option<[usize; 2]>,
    /// Attention heads.
    pub(super) heads: usize,
    /// Width of a token, if it is said.
    pub(super) d_model: Option<usize>,
    /// Number of blocks, if it is said.
    pub(super) depth: Option<usize>,
    /// Side of a patch, if it is said.
    pub(super) patch_size: Option<usize>,
    /// Epsilon of the norms.
    pub(super) eps: f64,
    /// Activation of the MLPs.
    pub(super) activation: Activation,
    /// Pooling; `None` for what the tensors suggest.
    pub(super) pool: Option<Pool>,
    /// Pooling reads the tokens before the patches too.
    pub(super) pool_include_prefix: bool,
    /// Register tokens have position embeddings too.
    pub(super) placed_registers: bool,
    /// Base of rotary positions.
    pub(super) rope_theta: Option<f64>,
    /// Gated MLPs; `None` where the tensors tell.
    pub(super) gated_mlp: Option<bool>,
    /// Biases of queries, keys and values; `None` where the tensors tell.
    pub(super) qkv_bias: Option<bool>,
    /// How position embeddings are interpolated.
    pub(super) resample: Resample,
    /// Position embeddings of another size than the image's are interpolated when they are read, as timm does.
    pub(super) interpolated: bool,
}

/// What a Hugging Face config.json says; `json` is the vision part. Fields that the modelling code of the family does not
/// read are ignored; what is absent has transformers' default.
pub(super) fn hugging_face(json: &Value, family: Family) -> Result<Declared, String> {
    let default_heads = if family == Family::Dinov3 { 6 } else { 12 };
    let default_eps = match family {
        Family::Vit | Family::Deit => 1e-12,
        Family::Clip | Family::Dinov3 => 1e-5,
        _ => 1e-6,
    };
    if let Some(channels) = number(json, "num_channels")?.filter(|channels| *channels != 3) {
        return Err(format!("field 'num_channels' is {channels}; images here have 3"));
    }
    let gated = match family {
        Family::Dinov2 => flag(json, "use_swiglu_ffn")?.unwrap_or(false),
        Family::Dinov3 => flag(json, "use_gated_mlp")?.unwrap_or(false),
        _ => false,
    };
    let activation = match (family, json.get("hidden_act")) {
        // DINOv2's gated MLP knows one activation only.
        (Family::Dinov2, _) if gated => Activation::Silu,
        (Family::Clip, None | Some(Value::Null)) => Activation::QuickGelu,
        (Family::Siglip, None | Some(Value::Null)) => Activation::GeluPytorchTanh,
        (_, None | Some(Value::Null)) => Activation::Gelu,
        (_, Some(value)) => activation(value).ok_or_else(|| {
            format!(
                "field 'hidden_act' is {value}; implemented are gelu, quick_gelu, gelu_pytorch_tanh, gelu_new, relu and silu"
            )
        })?,
    };
    let qkv_bias = match family {
        Family::Vit | Family::Deit | Family::Dinov2 => Some(flag(json, "qkv_bias")?.unwrap_or(true)),
        _ => None,
    };
    Ok(Declared {
        image: Some(sides(json, "image_size")?.unwrap_or([224, 224])),
        heads: number(json, "num_attention_heads")?.unwrap_or(default_heads),
        d_model: number(json, "hidden_size")?,
        depth: number(json, "num_hidden_layers")?,
        patch_size: match sides(json, "patch_size")? {
            Some([height, width]) if height != width => {
                return Err(format!(
                    "field 'patch_size' is [{height}, {width}]; patches here are square"
                ));
            }
            sides => sides.map(|[side, _]| side),
        },
        eps: positive(json, "layer_norm_eps")?.unwrap_or(default_eps),
        activation,
        pool: None,
        pool_include_prefix: false,
        placed_registers: false,
        rope_theta: match family {
            Family::Dinov3 => Some(positive(json, "rope_theta")?.unwrap_or(100.0)),
            _ => None,
        },
        gated_mlp: Some(gated),
        qkv_bias,
        resample: match json.get("model_type").and_then(Value::as_str) {
            Some("dinov2_with_registers") => Resample::Antialiased,
            _ => Resample::Plain,
        },
        interpolated: false,
    })
}

/// The activation that `value` names.
pub(super) fn activation(value: &Value) -> Option<Activation> {
    serde_json::from_value(value.clone()).ok()
}

/// A whole number.
pub(crate) fn number(json: &Value, field: &str) -> Result<Option<usize>, String> {
    match json.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(value) => Ok(Some(value as usize)),
            None => Err(format!("field '{field}' is {value}; expected a whole number")),
        },
    }
}

/// True or false.
pub(crate) fn flag(json: &Value, field: &str) -> Result<Option<bool>, String> {
    match json.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_bool() {
            Some(value) => Ok(Some(value)),
            None => Err(format!("field '{field}' is {value}; expected true or false")),
        },
    }
}

/// A number above 0.
pub(crate) fn positive(json: &Value, field: &str) -> Result<Option<f64>, String> {
    match json.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64().filter(|value| *value > 0.0) {
            Some(value) => Ok(Some(value)),
            None => Err(format!("field '{field}' is {value}; expected a number above 0")),
        },
    }
}

/// Height and width: a number for both, or a list of the two.
pub(super) fn sides(json: &Value, field: &str) -> Result<Option<[usize; 2]>, String> {
    let wrong = |value: &Value| format!("field '{field}' is {value}; expected a whole number or [height, width]");
    match json.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value @ Value::Array(list)) => {
            let sides: Option<Vec<usize>> = list.iter().map(|side| Some(side.as_u64()? as usize)).collect();
            match sides.as_deref() {
                Some([height, width]) => Ok(Some([*height, *width])),
                Some([side]) => Ok(Some([*side; 2])),
                _ => Err(wrong(value)),
            }
        }
        Some(value) => match value.as_u64() {
            Some(side) => Ok(Some([side as usize; 2])),
            None => Err(wrong(value)),
        },
    }
}
