//! Hugging Face names to timm's; query, key and value become one fused weight.

use std::collections::BTreeMap;

use serde_json::Value;
use wegeft::storage::{Stored, Tensors};

use super::Family;

/// Parts of names, replaced in this order.
const PARTS: [(&str, &str); 25] = [
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("embeddings.patch_embeddings.", "patch_embed.proj."),
    ("embeddings.patch_embedding.", "patch_embed.proj."),
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.class_embedding", "cls_token"),
    ("embeddings.distillation_token", "dist_token"),
    ("embeddings.register_tokens", "reg_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.position_embedding.weight", "pos_embed"),
    ("encoder.layers.", "blocks."),
    ("encoder.layer.", "blocks."),
    ("attention.output.dense", "attn.proj"),
    ("self_attn.out_proj", "attn.proj"),
    ("attention.o_proj", "attn.proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("mlp.up_proj", "mlp.fc1"),
    ("mlp.down_proj", "mlp.fc2"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("layer_norm1", "norm1"),
    ("layer_norm2", "norm2"),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("pre_layrnorm", "norm_pre"), // CLIP's own spelling
    ("post_layernorm", "norm"),
];

/// SigLIP's pooling.
const POOL: [(&str, &str); 4] = [
    ("head.probe", "attn_pool.latent"),
    ("head.attention.out_proj", "attn_pool.proj"),
    ("head.layernorm", "attn_pool.norm"),
    ("head.mlp", "attn_pool.mlp"),
];

/// Query, key and value, as the families spell them.
const QKV: [[&str; 3]; 3] = [
    [
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
    ],
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
];

/// `tensors` under timm's names, in timm's shapes.
///
/// # Errors
/// A part of a query, key and value that is missing.
pub(super) fn rename(tensors: Tensors, family: Family, json: &Value) -> Result<Tensors, String> {
    let mut renamed = Tensors::new();
    let mut qkv: BTreeMap<String, [Option<Stored>; 3]> = BTreeMap::new();
    for (name, mut tensor) in tensors {
        if family == Family::Timm {
            renamed.insert(name, tensor);
            continue;
        }
        let name = short(&name, family);
        let part = QKV.iter().find_map(|names| {
            let index = names.iter().position(|part| name.contains(part))?;
            Some((index, name.replace(names[index], "attn.qkv")))
        });
        if let Some((index, fused)) = part {
            qkv.entry(fused).or_default()[index] = Some(tensor);
            continue;
        }
        if let Some(kind) = name.strip_prefix("head.attention.in_proj_") {
            let (q, kv) = split_first_third(tensor);
            renamed.insert(format!("attn_pool.q.{kind}"), q);
            renamed.insert(format!("attn_pool.kv.{kind}"), kv);
            continue;
        }
        if matches!(name.as_str(), "cls_token" | "pos_embed") {
            while tensor.shape.len() < 3 {
                tensor.shape.insert(0, 1);
            }
        }
        // A picture without registers has an empty tensor of them.
        if !tensor.shape.contains(&0) {
            renamed.insert(name, tensor);
        }
    }
    for (name, parts) in qkv {
        renamed.insert(name.clone(), fused(&name, parts, family, json)?);
    }
    if renamed.contains_key("dist_token") {
        // Its two heads read two tokens apart; a new head reads their mean.
        renamed.retain(|name, _| !name.starts_with("head."));
    }
    Ok(renamed)
}

fn short(name: &str, family: Family) -> String {
    let mut short = name;
    for prefix in [
        "vit.",
        "deit.",
        "dinov2.",
        "dinov2_with_registers.",
        "vision_model.",
        "model.",
    ] {
        short = short.strip_prefix(prefix).unwrap_or(short);
    }
    let mut short = match short.strip_prefix("layer.") {
        Some(rest) => format!("blocks.{rest}"), // DINOv3
        None => short.to_string(),
    };
    if family == Family::Siglip {
        for (theirs, ours) in POOL {
            short = short.replace(theirs, ours);
        }
    }
    for (theirs, ours) in PARTS {
        short = short.replace(theirs, ours);
    }
    if let Some(rest) = short.strip_prefix("layernorm.") {
        return format!("norm.{rest}");
    }
    if let Some(rest) = short.strip_prefix("classifier.") {
        return format!("head.{rest}");
    }
    match short.starts_with("blocks.") {
        true => short.replace("output.dense", "mlp.fc2"),
        false => short,
    }
}

/// One tensor of the three parts, one above the other. A bias that the family leaves out is zero.
fn fused(name: &str, mut parts: [Option<Stored>; 3], family: Family, json: &Value) -> Result<Stored, String> {
    const KINDS: [&str; 3] = ["query", "key", "value"];
    let rows = parts
        .iter()
        .flatten()
        .next()
        .map_or(0, |part| part.shape.first().copied().unwrap_or(0));
    for (part, kind) in parts.iter_mut().zip(KINDS) {
        let said = json.get(format!("{kind}_bias")).and_then(Value::as_bool);
        let left_out = family == Family::Dinov3 && !said.unwrap_or(kind != "key");
        if part.is_none() && left_out && name.ends_with(".bias") {
            *part = Some(Stored {
                shape: vec![rows],
                values: vec![0.0; rows],
            });
        }
        if part.as_ref().is_none_or(|part| part.shape.is_empty()) {
            return Err(format!("missing the '{kind}' part of '{name}'"));
        }
    }
    let parts: Vec<Stored> = parts.into_iter().flatten().collect();
    let mut shape = parts[0].shape.clone();
    shape[0] = parts.iter().map(|part| part.shape[0]).sum();
    Ok(Stored {
        shape,
        values: parts.into_iter().flat_map(|part| part.values).collect(),
    })
}

/// The first third of the rows, and the others.
fn split_first_third(tensor: Stored) -> (Stored, Stored) {
    let part = |thirds: usize, values: &[f32]| {
        let mut shape = tensor.shape.clone();
        if let Some(rows) = shape.first_mut() {
            *rows = *rows / 3 * thirds;
        }
        Stored {
            shape,
            values: values.to_vec(),
        }
    };
    let (first, rest) = tensor.values.split_at(tensor.values.len() / 3);
    (part(1, first), part(2, rest))
}
