//! Hugging Face names to timm's; query, key and value become one fused weight, gate and up another. Where each tensor came
//! from is noted, so that changed weights can be written back under the names of the file.

use std::collections::BTreeMap;
use std::ops::Range;

use wegeft::storage::{Stored, Tensors};

use super::family::{ANCHORS, BASES, Family, unwrapped};
use crate::wrapped::{Wrapped, unmerged};

/// Parts of names, replaced in this order.
const PARTS: [(&str, &str); 27] = [
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
    ("mlp.down_proj", "mlp.fc2"),
    ("mlp.weights_in", "mlp.fc1"),
    ("mlp.weights_out", "mlp.fc2"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("layer_norm1", "norm1"),
    ("layer_norm2", "norm2"),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("pre_layrnorm", "norm_pre"), // CLIP's own spelling
    ("post_layernorm", "norm"),
    ("cls_classifier.", "head."),
];

/// SigLIP's pooling.
const POOL: [(&str, &str); 4] = [
    ("head.probe", "attn_pool.latent"),
    ("head.attention.out_proj", "attn_pool.proj"),
    ("head.layernorm", "attn_pool.norm"),
    ("head.mlp", "attn_pool.mlp"),
];

/// Layers that are one fused layer here, as the families spell them, and the fused one's name.
const FUSED: [(&[&str], &str); 4] = [
    (
        &[
            "attention.attention.query",
            "attention.attention.key",
            "attention.attention.value",
        ],
        "attn.qkv",
    ),
    (
        &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "attn.qkv",
    ),
    (
        &["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        "attn.qkv",
    ),
    (&["mlp.gate_proj", "mlp.up_proj"], "mlp.fc1"),
];

/// What a tensor or layer of a file is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ours {
    /// The tensor of that name.
    Whole(String),
    /// Part number `index` of the `of` parts of the tensor of that name.
    Part {
        /// Name of the fused one.
        name: String,
        /// Which part.
        index: usize,
        /// How many there are.
        of: usize,
    },
}

/// What the tensor or layer that a file of `family` calls `name` is here.
pub(crate) fn ours(name: &str, family: Family) -> Ours {
    let name = unwrapped(name);
    if family == Family::Timm {
        return Ours::Whole(name.to_string());
    }
    let name = short(name, family);
    let part = FUSED.iter().find_map(|(names, fused)| {
        let index = names.iter().position(|part| has_part(&name, part))?;
        Some(Ours::Part {
            name: name.replace(names[index], fused),
            index,
            of: names.len(),
        })
    });
    // DINOv3's plain MLP has the name that the gated one gives to its second half.
    part.unwrap_or(Ours::Whole(name))
}

/// True if `part` is in `name` as whole components.
fn has_part(name: &str, part: &str) -> bool {
    name.find(part).is_some_and(|at| {
        let after = &name[at + part.len()..];
        (at == 0 || name[..at].ends_with('.')) && (after.is_empty() || after.starts_with('.'))
    })
}

/// Which elements of a file's tensor become which elements of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// Name in the file.
    pub(crate) name: String,
    /// Which of our tensor's elements.
    pub(crate) ours: Range<usize>,
    /// The first of them in the file's tensor.
    pub(crate) theirs: usize,
}

/// Tensors under timm's names, in timm's shapes, and for each where it came from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Renamed {
    /// The tensors.
    pub(crate) tensors: Tensors,
    /// Of each, the tensors of the file.
    pub(crate) sources: BTreeMap<String, Vec<Source>>,
}

/// `tensors` of a file of `family` under timm's names. Of a fused bias the parts that the file lacks are zero where
/// `zero` says so of the fused name and the part.
///
/// # Errors
/// A part that is missing, parts that do not fit each other, two tensors of one name.
pub(super) fn rename(tensors: Tensors, family: Family, zero: impl Fn(&str, usize) -> bool) -> Result<Renamed, String> {
    let mut renamed = Renamed::default();
    let mut fused: BTreeMap<String, Vec<Option<(String, Stored)>>> = BTreeMap::new();
    let gated = tensors.keys().any(|name| has_part(name, "mlp.gate_proj"));
    let wrapped = wrapped(&tensors, family)?;
    for (theirs, tensor) in tensors {
        match ours(&wrapped.without(&theirs), family) {
            Ours::Part { name, index, of } if of == 3 || gated => {
                let parts = fused.entry(name.clone()).or_insert_with(|| vec![None; of]);
                if parts[index].replace((theirs, tensor)).is_some() {
                    return Err(format!("two tensors are part {index} of '{name}'"));
                }
            }
            Ours::Part { name, .. } => renamed.add(name, theirs, tensor)?,
            Ours::Whole(name) => match name.strip_prefix("head.attention.in_proj_") {
                Some(kind) => renamed.add_in_proj(kind, theirs, tensor)?,
                // A model without registers has an empty tensor of them.
                None if name == "reg_token" && tensor.shape.contains(&0) => {}
                None => renamed.add(name, theirs, tensor)?,
            },
        }
    }
    for (name, parts) in fused {
        renamed.add_fused(name, parts, &zero)?;
    }
    Ok(renamed)
}

/// What stands before the names of `tensors`.
///
/// # Errors
/// Tensors of two models, or of an adapter that is not merged.
pub(super) fn wrapped(tensors: &Tensors, family: Family) -> Result<Wrapped, String> {
    let names = || tensors.keys().map(String::as_str);
    if let Some(message) = unmerged(names()) {
        return Err(message);
    }
    let bases: &[&str] = if family == Family::Timm { &[] } else { &BASES };
    Wrapped::find(names(), &ANCHORS, bases).map_err(|[one, other]| {
        format!("the tensors of '{one}…' and of '{other}…' are two vision transformers; keep one of them")
    })
}

impl Renamed {
    fn add(&mut self, name: String, theirs: String, mut tensor: Stored) -> Result<(), String> {
        let source = Source {
            name: theirs,
            ours: 0..tensor.values.len(),
            theirs: 0,
        };
        if matches!(name.as_str(), "cls_token" | "dist_token" | "reg_token" | "pos_embed") {
            while tensor.shape.len() < 3 {
                tensor.shape.insert(0, 1);
            }
        }
        if let Some(other) = self.sources.insert(name.clone(), vec![source]) {
            let [one, two] = [&other[0].name, &self.sources[&name][0].name];
            return Err(format!("'{one}' and '{two}' are both '{name}'"));
        }
        self.tensors.insert(name, tensor);
        Ok(())
    }

    /// PyTorch's query, key and value weights of attention in one: timm stores the query's separately.
    fn add_in_proj(&mut self, kind: &str, theirs: String, tensor: Stored) -> Result<(), String> {
        let rows = tensor.shape.first().copied().unwrap_or(0);
        if rows == 0 || rows % 3 != 0 {
            return Err(format!(
                "'{theirs}' has shape {:?}, expected three times the width",
                tensor.shape
            ));
        }
        let part = |first: usize, end: usize| {
            let row = tensor.values.len() / rows;
            let mut shape = tensor.shape.clone();
            shape[0] = end - first;
            Stored {
                shape,
                values: tensor.values[first * row..end * row].to_vec(),
            }
        };
        for (name, first, end) in [("q", 0, rows / 3), ("kv", rows / 3, rows)] {
            let name = format!("attn_pool.{name}.{kind}");
            let part = part(first, end);
            let source = Source {
                name: theirs.clone(),
                ours: 0..part.values.len(),
                theirs: first * (tensor.values.len() / rows),
            };
            self.sources.insert(name.clone(), vec![source]);
            self.tensors.insert(name, part);
        }
        Ok(())
    }

    /// One tensor of the parts, one above the other.
    fn add_fused(
        &mut self,
        name: String,
        parts: Vec<Option<(String, Stored)>>,
        zero: &impl Fn(&str, usize) -> bool,
    ) -> Result<(), String> {
        let found = parts.iter().flatten().map(|(_, part)| part);
        let shapes: Vec<&Vec<usize>> = found.map(|part| &part.shape).collect();
        let Some(shape) = shapes.first().filter(|shape| !shape.is_empty()) else {
            return Err(format!("'{name}' is a number, expected a matrix or a vector"));
        };
        if shapes.iter().any(|other| other != shape) {
            return Err(format!("the parts of '{name}' have different shapes: {shapes:?}"));
        }
        let mut shape = shape.to_vec();
        let rows = shape[0];
        let size: usize = shape.iter().product();
        shape[0] = rows * parts.len();
        let mut sources = Vec::with_capacity(parts.len());
        let mut values = Vec::with_capacity(size * parts.len());
        for (index, part) in parts.into_iter().enumerate() {
            match part {
                Some((theirs, part)) => {
                    sources.push(Source {
                        name: theirs,
                        ours: index * size..(index + 1) * size,
                        theirs: 0,
                    });
                    values.extend(part.values);
                }
                None if zero(&name, index) => values.resize(values.len() + size, 0.0),
                None => {
                    let kind = match shape[0] / rows {
                        3 => ["query", "key", "value"][index],
                        _ => ["gate", "up"][index],
                    };
                    return Err(format!("missing the '{kind}' part of '{name}'"));
                }
            }
        }
        if let Some(other) = self.sources.insert(name.clone(), sources) {
            return Err(format!("'{}' and others are both '{name}'", other[0].name));
        }
        self.tensors.insert(name, Stored { shape, values });
        Ok(())
    }
}

fn short(name: &str, family: Family) -> String {
    let mut short = name;
    for prefix in BASES {
        short = unwrapped(short.strip_prefix(prefix).unwrap_or(short));
    }
    let block = short.strip_prefix("layer.").or_else(|| short.strip_prefix("layers."));
    let mut short = match block {
        Some(rest) => format!("blocks.{rest}"),
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
    for (theirs, ours) in [
        ("layernorm", "norm"),
        ("classifier", "head"),
        ("cls_classifier", "head"),
        ("distillation_classifier", "head_dist"),
    ] {
        if let Some(rest) = short
            .strip_prefix(theirs)
            .filter(|rest| rest.is_empty() || rest.starts_with('.'))
        {
            return format!("{ours}{rest}");
        }
    }
    match short.starts_with("blocks.") {
        true => short.replace("output.dense", "mlp.fc2"),
        false => short,
    }
}
