//! timm's config.json: an architecture of its table, and `model_args` that change it.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use wegeft::storage::Tensors;

use super::declared::{Declared, activation, flag, number, positive, sides};
use super::two_heads::two_heads;
use crate::normalization::Normalization;
use crate::pos_embed::Resample;
use crate::vit::{Activation, HeadPool, Pool, Positions, VitConfig};

/// All architectures of the modules `vision_transformer` and `deit` of timm 1.0.31 (timm_models.py reads them from timm), and
/// the names of those that are called `vit_*` or `deit*` in its other modules.
const TABLE: &str = include_str!("timm_models.json");

/// One architecture of the table; what is absent there has timm's default.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Architecture {
    /// Height and width, pixels.
    image: [usize; 2],
    /// Side of a patch, pixels.
    patch: usize,
    /// Width of a token.
    width: usize,
    /// Number of blocks.
    depth: usize,
    /// Attention heads.
    heads: usize,
    /// Epsilon of the norms.
    #[serde(default = "default_eps")]
    eps: f64,
    /// Activation of the MLPs.
    #[serde(default)]
    activation: Activation,
    /// timm's `global_pool`.
    #[serde(default = "default_pool")]
    pool: String,
    /// timm's argument of that name.
    #[serde(default)]
    no_embed_class: bool,
    /// timm's argument of that name.
    #[serde(default)]
    pool_include_prefix: bool,
    /// How position embeddings are interpolated.
    #[serde(default = "default_resample")]
    resample: Resample,
}

fn default_resample() -> Resample {
    Resample::Antialiased
}

fn default_eps() -> f64 {
    1e-6
}

fn default_pool() -> String {
    "token".into()
}

/// Arguments of timm's `VisionTransformer` that change no inference, or that the tensors show.
const SHOWN: [&str; 23] = [
    "num_classes",
    "mlp_ratio",
    "qkv_bias",
    "proj_bias",
    "qk_norm",
    "init_values",
    "class_token",
    "pos_embed",
    "reg_tokens",
    "pre_norm",
    "final_norm",
    "fc_norm",
    "dynamic_img_size",
    "dynamic_img_pad",
    "strict_img_size",
    "drop_rate",
    "pos_drop_rate",
    "patch_drop_rate",
    "proj_drop_rate",
    "attn_drop_rate",
    "drop_path_rate",
    "weight_init",
    "fix_init",
];

/// Arguments that are read here.
const READ: [&str; 12] = [
    "img_size",
    "patch_size",
    "in_chans",
    "global_pool",
    "embed_dim",
    "depth",
    "num_heads",
    "no_embed_class",
    "pool_include_prefix",
    "norm_layer",
    "act_layer",
    "use_naflex",
];

/// What a timm config.json says.
///
/// # Errors
/// An architecture that is none of timm's vision transformers or has a part that is not implemented, an argument of which
/// the same is true.
pub(super) fn declared(json: &Value) -> Result<Declared, String> {
    let name = json.get("architecture").and_then(Value::as_str).unwrap_or_default();
    // A tag after a dot names weights, not an architecture.
    let name = name.split('.').next().unwrap_or(name);
    let arguments = json
        .get("model_args")
        .cloned()
        .unwrap_or_else(|| Value::Object(Map::new()));
    refused_arguments(&arguments)?;
    let own = |message: String| format!("model_args: {message}");
    let channels = number(&arguments, "in_chans").map_err(own)?;
    if let Some(channels) = channels.filter(|channels| *channels != 3) {
        return Err(format!(
            "model_args: 'in_chans' is {channels}; images here have 3 channels"
        ));
    }
    let pretrained = json.get("pretrained_cfg").unwrap_or(json);
    let known = architecture(name)?;
    // Not of timm's: written by hand or by this library, which then says what timm's table would.
    let heads_said = match number(&arguments, "num_heads").map_err(own)? {
        None => number(json, "num_heads")?,
        heads => heads,
    };
    let d_model = match number(&arguments, "embed_dim").map_err(own)? {
        None => known.as_ref().map(|known| known.width).filter(|_| heads_said.is_none()),
        width => width,
    };
    let Some(heads) = heads_said.or(known.as_ref().map(|known| known.heads)) else {
        return Err(format!(
            "field 'architecture' is '{name}', which timm 1.0 does not have, and no field says how many attention heads \
             there are; add 'num_heads'"
        ));
    };
    let pool_name = |json: &Value| json.get("global_pool").and_then(Value::as_str).map(String::from);
    // Beside a pretrained_cfg timm reads the field among the arguments only.
    let of_file = pool_name(json).filter(|_| known.is_none() || json.get("pretrained_cfg").is_none());
    let of_entry = known.as_ref().map(|known| known.pool.clone());
    let pool = match pool_name(&arguments).or(of_file).or(of_entry).as_deref() {
        None => None,
        Some("token") => Some(Pool::Cls),
        Some("avg") => Some(Pool::Mean),
        Some("max") => Some(Pool::Max),
        Some("avgmax") => Some(Pool::AvgMax),
        Some("map") => Some(Pool::Attention),
        Some(other) => {
            return Err(format!(
                "field 'global_pool' is '{other}'; implemented are token, avg, max, avgmax and map"
            ));
        }
    };
    let image = match sides(&arguments, "img_size").map_err(own)? {
        None => input_size(pretrained)?.or(known.as_ref().map(|known| known.image)),
        image => image,
    };
    let patch_size = match sides(&arguments, "patch_size").map_err(own)? {
        Some([height, width]) if height != width => {
            return Err(format!(
                "model_args: 'patch_size' is [{height}, {width}]; patches here are square"
            ));
        }
        Some([side, _]) => Some(side),
        None => known.as_ref().map(|known| known.patch).filter(|_| d_model.is_some()),
    };
    Ok(Declared {
        image,
        heads,
        d_model,
        depth: match number(&arguments, "depth").map_err(own)? {
            None => known.as_ref().map(|known| known.depth).filter(|_| d_model.is_some()),
            depth => depth,
        },
        patch_size,
        eps: match norm_eps(&arguments)? {
            None => positive(json, "layer_norm_eps")?
                .or(known.as_ref().map(|known| known.eps))
                .unwrap_or(default_eps()),
            Some(eps) => eps,
        },
        activation: match arguments.get("act_layer").or(json.get("hidden_act")) {
            None | Some(Value::Null) => known.as_ref().map(|known| known.activation).unwrap_or_default(),
            Some(value) => activation(value).ok_or_else(|| {
                format!("the activation is {value}; implemented are gelu, gelu_tanh, quick_gelu, relu and silu")
            })?,
        },
        pool,
        pool_include_prefix: match flag(&arguments, "pool_include_prefix").map_err(own)? {
            None => known.as_ref().is_some_and(|known| known.pool_include_prefix),
            Some(value) => value,
        },
        placed_registers: !match flag(&arguments, "no_embed_class").map_err(own)? {
            None => known.as_ref().is_some_and(|known| known.no_embed_class),
            Some(value) => value,
        },
        rope_theta: None,
        gated_mlp: None,
        qkv_bias: None,
        resample: known.map_or(Resample::Antialiased, |known| known.resample),
        interpolated: true,
    })
}

/// The table's entry of that name; `None` if timm has none of that name.
fn architecture(name: &str) -> Result<Option<Architecture>, String> {
    let table: Map<String, Value> =
        serde_json::from_str(TABLE).map_err(|e| format!("the table of timm's architectures is malformed ({e})"))?;
    let Some(entry) = table.get(name) else {
        return match name.starts_with("vit_") || name.starts_with("deit") {
            true => Ok(None),
            false => Err(format!(
                "field 'architecture' is '{name}'; of timm's models implemented are the vision transformers of its \
                 modules vision_transformer and deit"
            )),
        };
    };
    if let Some(module) = entry.as_str() {
        return Err(format!(
            "field 'architecture' is '{name}', of timm's module {module}, which is not implemented; of timm's models \
             implemented are those of vision_transformer and deit"
        ));
    }
    if let Some(reason) = entry.get("refused").and_then(Value::as_str) {
        return Err(format!(
            "field 'architecture' is '{name}', which has {reason}; that is not implemented"
        ));
    }
    serde_json::from_value(entry.clone())
        .map(Some)
        .map_err(|e| format!("the table of timm's architectures is malformed at '{name}' ({e})"))
}

/// Arguments that would make another model.
fn refused_arguments(arguments: &Value) -> Result<(), String> {
    let Some(arguments) = arguments.as_object() else {
        return Err(format!("field 'model_args' is {arguments}; expected an object"));
    };
    for (name, value) in arguments {
        let name = name.as_str();
        let plain = match name {
            _ if value.is_null() || SHOWN.contains(&name) || READ.contains(&name) => {
                !(name == "use_naflex" && value.as_bool() == Some(true))
            }
            "scale_attn_norm" | "scale_mlp_norm" => value.as_bool() == Some(false),
            _ => false,
        };
        if !plain {
            return Err(format!(
                "model_args: '{name}' is {value}, which is not implemented; leave it out if you can"
            ));
        }
    }
    Ok(())
}

/// Epsilon of the norms that an argument names.
fn norm_eps(arguments: &Value) -> Result<Option<f64>, String> {
    match arguments.get("norm_layer") {
        None | Some(Value::Null) => Ok(None),
        Some(name) if matches!(name.as_str(), Some("layernorm" | "layernormfp32" | "layernorm2d")) => Ok(Some(1e-6)),
        Some(name) => Err(format!(
            "model_args: 'norm_layer' is {name}, which is not implemented; of timm's norms only layernorm is"
        )),
    }
}

/// Height and width of `input_size`, `[channels, height, width]`.
fn input_size(pretrained: &Value) -> Result<Option<[usize; 2]>, String> {
    match pretrained.get("input_size") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match serde_json::from_value::<[usize; 3]>(value.clone()) {
            Ok([3, height, width]) => Ok(Some([height, width])),
            _ => Err(format!("field 'input_size' is {value}; expected [3, height, width]")),
        },
    }
}

/// True if `json` names one of timm's architectures that are implemented.
pub(super) fn is_known(json: &Value) -> bool {
    let name = json.get("architecture").and_then(Value::as_str).unwrap_or_default();
    let name = name.split('.').next().unwrap_or(name);
    architecture(name).is_ok_and(|known| known.is_some())
}

/// The head under timm's names: two of a distilled model.
pub(super) fn heads(head: Tensors, config: &VitConfig) -> Tensors {
    match config.dist_token {
        true => two_heads(head, config, ["head", "head_dist"]),
        false => head,
    }
}

/// Writes the number of classes and their names into a timm config.json.
pub(super) fn describe_head(json: &mut Value, classes: usize, labels: &[String]) {
    let Some(fields) = json.as_object_mut() else {
        return;
    };
    fields.insert("num_classes".into(), json!(classes));
    for part in ["model_args", "pretrained_cfg"] {
        if let Some(part) = fields.get_mut(part).and_then(Value::as_object_mut) {
            part.insert("num_classes".into(), json!(classes));
            for names in ["label_names", "label_descriptions"] {
                part.shift_remove(names);
            }
        }
    }
    fields.shift_remove("label_descriptions");
    match labels.len() == classes && classes > 0 {
        true => fields.insert("label_names".into(), json!(labels)),
        false => fields.shift_remove("label_names"),
    };
}

/// Writes the image size into a timm config.json.
pub(super) fn describe_size(json: &mut Value, config: &VitConfig) {
    let [height, width] = config.image();
    let Some(fields) = json.as_object_mut() else {
        return;
    };
    let arguments = fields.entry("model_args").or_insert_with(|| json!({}));
    if let Some(arguments) = arguments.as_object_mut() {
        arguments.insert("img_size".into(), json!([height, width]));
    }
    if let Some(own) = fields.get_mut("pretrained_cfg").and_then(Value::as_object_mut) {
        own.insert("input_size".into(), json!([3, height, width]));
    }
}

/// A number of f32 as people wrote it: 0.485, not 0.48500001430511475.
fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1e7).round() / 1e7
}

/// A model of any origin as timm's: tensors and config.json. `json` is the config.json that it had, `normalization` that of
/// its images.
///
/// # Errors
/// What timm has no argument for.
pub(super) fn described(
    ours: Tensors,
    config: &VitConfig,
    json: &Value,
    normalization: Normalization,
    labels: &[String],
) -> Result<(Tensors, Value), String> {
    let d = config.d_model;
    let hidden = config.mlp_dim.unwrap_or(4 * d);
    // Of timm's arguments none says a norm's epsilon or that an MLP is gated: an architecture that has it does.
    let base = match (config.layer_norm_eps, config.gated_mlp) {
        (1e-6, true) => "vit_giant_patch14_dinov2",
        (1e-6, false) => "vit_base_patch16_224",
        (1e-5, false) => "vit_base_patch16_clip_224",
        (eps, _) => {
            return Err(format!(
                "no architecture of timm has norms of epsilon {eps}{}; keep the adapter beside this backbone",
                if config.gated_mlp { " and gated MLPs" } else { "" }
            ));
        }
    };
    let ratio = hidden as f64 * if config.gated_mlp { 2.0 } else { 1.0 } / d as f64;
    let fits = [
        (config.rope_theta.is_none(), "rotary positions"),
        (config.mlp_bias, "MLPs without biases"),
        (
            config.patch_bias != config.norm_pre,
            "such a bias of the patch projection",
        ),
        (
            matches!(config.head_pool, None | Some(HeadPool::ClsDist)),
            "a head that reads something else than the pooled tokens",
        ),
        (
            (d as f64 * ratio) as usize == hidden * (1 + usize::from(config.gated_mlp)),
            "MLPs of that width",
        ),
        (
            config.positions != Positions::All || config.registers == 0,
            "position embeddings of the CLS token beside registers",
        ),
    ];
    if let Some((_, what)) = fits.iter().find(|(fits, _)| !fits) {
        return Err(format!(
            "no architecture of timm has {what}; keep the adapter beside this backbone"
        ));
    }
    let distilled = config.dist_token;
    let base = if distilled {
        "deit_base_distilled_patch16_224"
    } else {
        base
    };
    let [height, width] = config.image();
    let classes = config.num_classes;
    let act_layer = match config.activation {
        Activation::Gelu => "gelu",
        Activation::QuickGelu => "quick_gelu",
        Activation::GeluPytorchTanh => "gelu_tanh",
        Activation::Relu => "relu",
        Activation::Silu => "silu",
    };
    let global_pool = match config.pool {
        Pool::Cls => "token",
        Pool::Mean => "avg",
        Pool::Max => "max",
        Pool::AvgMax => "avgmax",
        Pool::Attention => "map",
    };
    let arguments = json!({
        "img_size": [height, width], "patch_size": config.patch_size, "num_classes": classes, "embed_dim": d,
        "depth": config.depth, "num_heads": config.heads, "mlp_ratio": ratio, "qkv_bias": config.qkv_bias,
        "qk_norm": config.qk_norm, "proj_bias": config.proj_bias,
        "init_values": config.layer_scale.then_some(1e-5), "class_token": config.cls_token,
        "pos_embed": if config.positions == Positions::None { "none" } else { "learn" },
        "no_embed_class": config.positions == Positions::Patches && config.prefix_tokens() > 0,
        "reg_tokens": config.registers, "pre_norm": config.norm_pre, "final_norm": config.final_norm,
        "fc_norm": config.fc_norm, "pool_include_prefix": config.pool_include_prefix, "global_pool": global_pool,
        "act_layer": act_layer,
    });
    let own = json.get("pretrained_cfg").unwrap_or(json);
    let kept = |field: &str| own.get(field).cloned();
    let mut pretrained = json!({
        "input_size": [3, height, width], "fixed_input_size": true, "num_classes": classes, "first_conv": "patch_embed.proj",
        "mean": normalization.mean.map(rounded), "std": normalization.std.map(rounded),
        "classifier": if distilled { json!(["head", "head_dist"]) } else { json!("head") },
    });
    for field in ["interpolation", "crop_pct", "crop_mode"] {
        if let Some(value) = kept(field) {
            pretrained[field] = value;
        }
    }
    let mut described = json!({
        "architecture": base, "num_classes": classes, "num_features": d, "global_pool": global_pool,
        "model_args": arguments, "pretrained_cfg": pretrained,
    });
    describe_head(&mut described, classes, labels);
    let (head, mut tensors): (Tensors, Tensors) = ours.into_iter().partition(|(name, _)| name.starts_with("head."));
    tensors.extend(heads(head, config));
    Ok((tensors, described))
}
