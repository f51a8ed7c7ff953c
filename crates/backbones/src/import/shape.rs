//! The shape of a model, from its config.json and its tensors.

use serde_json::Value;
use wegeft::storage::Tensors;

use super::Family;
use crate::vit::{Activation, Pool, Positions, VitConfig};

/// Shape of the model that `tensors` (under timm's names) and `json` describe.
///
/// # Errors
/// A field or a tensor of a kind that is not implemented.
pub(super) fn shape(json: &Value, family: Family, tensors: &Tensors) -> Result<VitConfig, String> {
    refused(json)?;
    let dims = |name: &str| {
        tensors
            .get(name)
            .map(|t| t.shape.clone())
            .ok_or_else(|| format!("the weights beside it lack '{name}'"))
    };
    let has = |name: &str| tensors.contains_key(name);
    let patch = dims("patch_embed.proj.weight")?;
    let (d_model, patch_size) = match patch[..] {
        [d_model, 3, side, other] if side == other => (d_model, side),
        _ => {
            return Err(format!(
                "'patch_embed.proj.weight' has shape {patch:?}, expected [d_model, 3, p, p]"
            ));
        }
    };
    let (positions, grid) = if has("pos_embed") || family != Family::Dinov3 {
        let tokens = dims("pos_embed")?.get(1).copied().unwrap_or_default();
        placed(tokens, usize::from(has("cls_token")) + usize::from(has("dist_token")))?
    } else {
        let size = number(json, "image_size")?.unwrap_or(224);
        (Positions::None, size / patch_size)
    };
    let depth = (0..)
        .take_while(|i| tensors.contains_key(&format!("blocks.{i}.norm1.weight")))
        .count();
    let heads = match number(json, "num_attention_heads")?.or(number(json, "num_heads")?) {
        Some(heads) => heads,
        // timm's config.json does not say: 16 heads from ViT-H on, before that one per 64 channels.
        None if d_model >= 1280 => 16,
        None => d_model / 64,
    };
    if heads == 0 || d_model % heads != 0 {
        return Err(format!(
            "field 'num_attention_heads' is {heads}, which does not divide d_model {d_model}"
        ));
    }
    let rope_theta =
        (family == Family::Dinov3).then(|| json.get("rope_theta").and_then(Value::as_f64).unwrap_or(100.0));
    if rope_theta.is_some() && !(d_model / heads).is_multiple_of(4) {
        return Err(format!(
            "heads of {} channels; rotary positions need a multiple of 4",
            d_model / heads
        ));
    }
    let hidden = dims("blocks.0.mlp.fc1.weight")?[0];
    let eps = json
        .get("layer_norm_eps")
        .and_then(Value::as_f64)
        .unwrap_or(family.layer_norm_eps());
    Ok(VitConfig::new(grid * patch_size, patch_size, d_model, depth, heads)
        .with_mlp_dim(Some(hidden))
        .with_num_classes(tensors.get("head.weight").map_or(0, |t| t.shape[0]))
        .with_cls_token(has("cls_token"))
        .with_dist_token(has("dist_token"))
        .with_registers(
            tensors
                .get("reg_token")
                .map_or(0, |t| t.shape.get(1).copied().unwrap_or(0)),
        )
        .with_positions(positions)
        .with_rope_theta(rope_theta)
        .with_patch_bias(has("patch_embed.proj.bias"))
        .with_norm_pre(has("norm_pre.weight"))
        .with_layer_scale(has("blocks.0.ls1.gamma"))
        .with_activation(activation(json, family)?)
        .with_pool(pool(json, has("attn_pool.latent"), has("cls_token"))?)
        .with_fc_norm(has("fc_norm.weight"))
        .with_layer_norm_eps(eps))
}

/// Fields that would make another model.
fn refused(json: &Value) -> Result<(), String> {
    for (field, value) in [
        ("use_swiglu_ffn", true),
        ("use_gated_mlp", true),
        ("mlp_bias", false),
        ("proj_bias", false),
        ("qkv_bias", false),
    ] {
        if json.get(field).and_then(Value::as_bool) == Some(value) {
            return Err(format!(
                "field '{field}' is {value}, which is not implemented; use a model with a plain GELU MLP and biases"
            ));
        }
    }
    Ok(())
}

fn number(json: &Value, field: &str) -> Result<Option<usize>, String> {
    match json.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(value) => Ok(Some(value as usize)),
            None => Err(format!("field '{field}' is {value}; expected a whole number")),
        },
    }
}

/// Which tokens `tokens` position embeddings belong to, and the side of the grid.
fn placed(tokens: usize, prefix: usize) -> Result<(Positions, usize), String> {
    let side = |patches: usize| {
        let side = (patches as f64).sqrt().round() as usize;
        (side > 0 && side * side == patches).then_some(side)
    };
    if let Some(grid) = tokens.checked_sub(prefix).and_then(side) {
        return Ok((if prefix > 0 { Positions::All } else { Positions::Patches }, grid));
    }
    side(tokens).map(|grid| (Positions::Patches, grid)).ok_or_else(|| {
        format!("'pos_embed' has {tokens} tokens, expected {prefix} for CLS and distillation and a square grid")
    })
}

fn activation(json: &Value, family: Family) -> Result<Activation, String> {
    let quick = json
        .get("architecture")
        .and_then(Value::as_str)
        .is_some_and(|name| name.contains("quickgelu"));
    match json.get("hidden_act") {
        None | Some(Value::Null) if quick => Ok(Activation::QuickGelu),
        None | Some(Value::Null) => Ok(family.activation()),
        Some(value) => serde_json::from_value(value.clone()).map_err(|_| {
            format!("field 'hidden_act' is {value}; implemented are gelu, quick_gelu and gelu_pytorch_tanh")
        }),
    }
}

fn pool(json: &Value, attention: bool, cls: bool) -> Result<Pool, String> {
    match json.get("global_pool").and_then(Value::as_str) {
        None if attention => Ok(Pool::Attention),
        None if !cls => Ok(Pool::Mean),
        None | Some("token") => Ok(Pool::Cls),
        Some("avg") => Ok(Pool::Mean),
        Some(other) => Err(format!(
            "field 'global_pool' is '{other}'; implemented are token and avg"
        )),
    }
}
