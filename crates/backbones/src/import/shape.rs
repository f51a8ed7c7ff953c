//! The shape of a model, from what its config.json declares and from its tensors.

use wegeft::storage::{Stored, Tensors};

use super::declared::Declared;
use super::family::Family;
use crate::pos_embed::{self, Resample};
use crate::vit::{Activation, HeadPool, Pool, Positions, VitConfig};

/// Most patches of an image: attention over more takes hours and tens of gigabytes.
const MOST_PATCHES: usize = 1 << 16;

/// What does not fit, and in which file.
pub(super) enum Misfit {
    /// Of config.json.
    Config(String),
    /// Of the weights.
    Weights(String),
}

/// Shape of the model that `tensors` (under timm's names) and `declared` describe. Position embeddings of another size are
/// interpolated, heads joined, and tensors taken away that the model does not read.
///
/// # Errors
/// A field or a tensor of a kind that is not implemented, or fields and tensors that contradict each other.
pub(super) fn shape(declared: &Declared, family: Family, tensors: &mut Tensors) -> Result<VitConfig, Misfit> {
    let [d_model, channels, patch_size, width] = dims::<4>(tensors, "patch_embed.proj.weight")?;
    if channels != 3 || patch_size != width || patch_size == 0 || d_model == 0 {
        return Err(Misfit::Weights(format!(
            "'patch_embed.proj.weight' has shape {:?}, expected [d_model, 3, p, p]",
            [d_model, channels, patch_size, width]
        )));
    }
    agree("the width of a token", declared.d_model, d_model)?;
    agree("the side of a patch", declared.patch_size, patch_size)?;
    let heads = declared.heads;
    if heads == 0 || !d_model.is_multiple_of(heads) {
        return Err(Misfit::Config(format!(
            "field 'num_attention_heads' is {heads}, which does not divide d_model {d_model}"
        )));
    }
    if declared.rope_theta.is_some() && !(d_model / heads).is_multiple_of(4) {
        return Err(Misfit::Config(format!(
            "heads of {} channels; rotary positions need a multiple of 4",
            d_model / heads
        )));
    }
    let depth = depth(declared, tensors)?;
    let [fc1, _] = dims::<2>(tensors, "blocks.0.mlp.fc1.weight")?;
    let [_, hidden] = dims::<2>(tensors, "blocks.0.mlp.fc2.weight")?;
    let gated_mlp = declared.gated_mlp.unwrap_or(hidden.checked_mul(2) == Some(fc1));
    if declared.qkv_bias == Some(false) {
        tensors.retain(|name, _| !name.ends_with("attn.qkv.bias"));
    }
    let pool = pool(declared, tensors);
    let head_pool = head_pool(family, pool, tensors)?;
    let has = |name: &str| tensors.contains_key(name);
    let config = VitConfig::new(patch_size, patch_size, d_model, depth, heads)
        .with_mlp_dim(Some(hidden))
        .with_num_classes(match has("head.weight") {
            true => dims::<2>(tensors, "head.weight")?[0],
            false => 0,
        })
        .with_cls_token(has("cls_token"))
        .with_dist_token(has("dist_token"))
        .with_registers(match has("reg_token") {
            true => dims::<3>(tensors, "reg_token")?[1],
            false => 0,
        })
        .with_rope_theta(declared.rope_theta)
        .with_patch_bias(has("patch_embed.proj.bias"))
        .with_qkv_bias(declared.qkv_bias.unwrap_or(has("blocks.0.attn.qkv.bias")))
        .with_qk_norm(has("blocks.0.attn.q_norm.weight"))
        .with_proj_bias(has("blocks.0.attn.proj.bias"))
        .with_mlp_bias(has("blocks.0.mlp.fc1.bias"))
        .with_gated_mlp(gated_mlp)
        .with_norm_pre(has("norm_pre.weight"))
        .with_layer_scale(has("blocks.0.ls1.gamma"))
        .with_activation(match gated_mlp && declared.gated_mlp.is_none() {
            // timm's table names the one of its gated models; what else is gated is SwiGLU.
            true if declared.activation == Activation::Gelu => Activation::Silu,
            _ => declared.activation,
        })
        .with_pool(pool)
        .with_head_pool(head_pool)
        .with_pool_include_prefix(declared.pool_include_prefix)
        .with_final_norm(has("norm.weight") || has("norm.bias") || has("fc_norm.weight"))
        .with_fc_norm(has("fc_norm.weight"))
        .with_layer_norm_eps(declared.eps);
    if pool == Pool::Cls && !config.cls_token {
        return Err(Misfit::Config(
            "the model has no CLS token to pool; name another pooling (timm's 'global_pool')".into(),
        ));
    }
    placed(config, declared, tensors)
}

/// `config` for images of `[height, width]` pixels, with the position embeddings of `tensors` interpolated.
///
/// # Errors
/// Sizes that are no multiples of the patch size, or too large.
pub(super) fn resized(
    config: VitConfig,
    [height, width]: [usize; 2],
    resample: Resample,
    tensors: &mut Tensors,
) -> Result<VitConfig, String> {
    let from = config.grid();
    let config = config.with_image([height, width]);
    let patch = config.patch_size;
    if height == 0 || width == 0 || height % patch != 0 || width % patch != 0 {
        return Err(format!(
            "image_size {} is not a multiple of the patch size {patch}",
            spelled([height, width])
        ));
    }
    let to = config.grid();
    if to[0].checked_mul(to[1]).is_none_or(|patches| patches > MOST_PATCHES) {
        return Err(format!(
            "image_size {} gives {} x {} patches, more than the {MOST_PATCHES} that an image may have",
            spelled([height, width]),
            to[0],
            to[1]
        ));
    }
    if from != to
        && let Some(stored) = tensors.get_mut("pos_embed")
    {
        let prefix = config.placed_prefix_tokens();
        stored.values = pos_embed::resize(&stored.values, prefix, from, to, resample);
        stored.shape = vec![1, prefix + to[0] * to[1], config.d_model];
    }
    Ok(config)
}

/// A size as people write it: one number if both sides are equal.
pub(super) fn spelled([height, width]: [usize; 2]) -> String {
    match height == width {
        true => height.to_string(),
        false => format!("{height}x{width}"),
    }
}

/// Gives `config` its image size and says which tokens have position embeddings.
fn placed(config: VitConfig, declared: &Declared, tensors: &mut Tensors) -> Result<VitConfig, Misfit> {
    let patch = config.patch_size;
    let image = declared.image.filter(|sides| sides.iter().all(|side| *side >= patch));
    if let (Some(said), None) = (declared.image, image) {
        return Err(Misfit::Config(format!(
            "the image size {} is smaller than a patch of {patch} px",
            spelled(said)
        )));
    }
    // A convolution passes over what does not fill a patch.
    let declared_grid = image.map(|sides| sides.map(|side| side / patch));
    let sized = |config: VitConfig, grid: [usize; 2]| config.with_image(grid.map(|side| side.saturating_mul(patch)));
    let checked = |grid: [usize; 2]| match grid[0].checked_mul(grid[1]).filter(|patches| *patches <= MOST_PATCHES) {
        Some(patches) => Ok(patches),
        None => Err(Misfit::Config(format!(
            "the image size {} gives more than the {MOST_PATCHES} patches that an image may have",
            spelled(grid.map(|side| side.saturating_mul(patch)))
        ))),
    };
    if !tensors.contains_key("pos_embed") {
        let Some(grid) = declared_grid else {
            return Err(Misfit::Config(
                "no field says the size of the image, and there are no position embeddings to tell it; add 'image_size'"
                    .into(),
            ));
        };
        checked(grid)?;
        return Ok(sized(config.with_positions(Positions::None), grid));
    }
    let [one, tokens, d] = dims::<3>(tensors, "pos_embed")?;
    if one != 1 || d != config.d_model {
        return Err(Misfit::Weights(format!(
            "'pos_embed' has shape {:?}, expected [1, tokens, {}]",
            [one, tokens, d],
            config.d_model
        )));
    }
    let leading = usize::from(config.cls_token) + usize::from(config.dist_token);
    // In the order of likelihood; timm's argument decides between the first two where there are registers.
    let mut kinds = vec![(Positions::All, leading)];
    if config.registers > 0 {
        let with_registers = (Positions::Registers, leading + config.registers);
        match declared.placed_registers {
            true => kinds.insert(0, with_registers),
            false => kinds.push(with_registers),
        }
    }
    kinds.push((Positions::Patches, 0));
    if let Some(grid) = declared_grid {
        let patches = checked(grid)?;
        let fits = kinds.iter().find(|(_, prefix)| tokens == prefix + patches);
        if let Some((positions, _)) = fits {
            return Ok(sized(config.with_positions(*positions), grid));
        }
    }
    let square = kinds.iter().find_map(|(positions, prefix)| {
        let patches = tokens.checked_sub(*prefix)?;
        let side = patches.isqrt();
        (side > 0 && side * side == patches).then_some((*positions, side))
    });
    match (square, declared_grid) {
        (Some((positions, side)), None) => Ok(sized(config.with_positions(positions), [side, side])),
        // As timm reads weights of another size.
        (Some((positions, side)), Some(grid)) if declared.interpolated => {
            let config = sized(config.with_positions(positions), [side, side]);
            resized(config, grid.map(|side| side * patch), declared.resample, tensors).map_err(Misfit::Config)
        }
        (_, Some(grid)) => Err(Misfit::Config(format!(
            "the image size {} gives {} x {} patches, and the weights have position embeddings of {tokens} tokens, {leading} \
             of them for CLS and distillation; correct the field",
            spelled(grid.map(|side| side * patch)),
            grid[0],
            grid[1]
        ))),
        (None, None) => Err(Misfit::Config(format!(
            "'pos_embed' has {tokens} tokens, which are no square grid with {leading} more for CLS and distillation; say the \
             image size (timm's model_args.img_size)"
        ))),
    }
}

/// How tokens become features. What that does not read is taken away.
fn pool(declared: &Declared, tensors: &mut Tensors) -> Pool {
    let pool = match declared.pool {
        Some(pool) => pool,
        None if tensors.keys().any(|name| name.starts_with("attn_pool.")) => Pool::Attention,
        None if !tensors.contains_key("cls_token") => Pool::Mean,
        None => Pool::Cls,
    };
    if pool != Pool::Attention {
        tensors.retain(|name, _| !name.starts_with("attn_pool."));
    }
    pool
}

/// What the head reads if not the features: transformers' classes pool each in its own way. Of two heads one is made that
/// reads both tokens.
fn head_pool(family: Family, pool: Pool, tensors: &mut Tensors) -> Result<Option<HeadPool>, Misfit> {
    let has_head = tensors.contains_key("head.weight");
    if !has_head || !tensors.contains_key("dist_token") || pool != Pool::Cls {
        tensors.retain(|name, _| !name.starts_with("head_dist."));
        return Ok(match family {
            Family::Clip if has_head => Some(HeadPool::MeanUnnormed),
            Family::Siglip if has_head => Some(HeadPool::Mean),
            Family::Dinov2 if has_head => Some(HeadPool::ClsMean),
            _ => None,
        });
    }
    let two_heads = tensors.contains_key("head_dist.weight");
    if !two_heads && family == Family::Timm {
        return Ok(None);
    }
    // The mean of both heads' logits, or Hugging Face's one head, which reads the CLS token only.
    let (share, none) = match two_heads {
        true => (0.5, None),
        false => (1.0, Some(0.0)),
    };
    for kind in ["weight", "bias"] {
        let of_cls = taken(tensors, &format!("head.{kind}"))?;
        let of_dist = match none {
            None => taken(tensors, &format!("head_dist.{kind}"))?,
            Some(zero) => Stored {
                values: vec![zero; of_cls.values.len()],
                ..of_cls.clone()
            },
        };
        if of_cls.shape != of_dist.shape || of_cls.shape.is_empty() {
            return Err(Misfit::Weights(format!(
                "the heads' {kind}s have shapes {:?} and {:?}; expected the same",
                of_cls.shape, of_dist.shape
            )));
        }
        let stored = match kind {
            "weight" => beside(&of_cls, &of_dist, share),
            _ => Stored {
                values: of_cls
                    .values
                    .iter()
                    .zip(&of_dist.values)
                    .map(|(a, b)| share * (a + b))
                    .collect(),
                shape: of_cls.shape,
            },
        };
        tensors.insert(format!("head.{kind}"), stored);
    }
    Ok(Some(HeadPool::ClsDist))
}

/// `[n, d]` and `[n, d]` to `[n, 2·d]`, times `share`.
fn beside(left: &Stored, right: &Stored, share: f32) -> Stored {
    let rows = left.shape[0];
    let columns = left.values.len() / rows.max(1);
    let row = |stored: &Stored, index: usize| stored.values[index * columns..(index + 1) * columns].to_vec();
    let values = (0..rows).flat_map(|index| [row(left, index), row(right, index)].concat());
    Stored {
        shape: vec![rows, 2 * columns],
        values: values.map(|value| share * value).collect(),
    }
}

fn taken(tensors: &mut Tensors, name: &str) -> Result<Stored, Misfit> {
    tensors.remove(name).ok_or_else(|| lacking(tensors, name))
}

/// The number of blocks. Tensors of further ones than declared are not read, as by the reference.
fn depth(declared: &Declared, tensors: &mut Tensors) -> Result<usize, Misfit> {
    let stored = (0..)
        .take_while(|i| tensors.contains_key(&format!("blocks.{i}.norm1.weight")))
        .count();
    if stored == 0 {
        return Err(lacking(tensors, "blocks.0.norm1.weight"));
    }
    let depth = declared.depth.unwrap_or(stored);
    if depth == 0 || depth > stored {
        return Err(Misfit::Config(format!(
            "it says {depth} blocks, and the weights have {stored}; correct the field ('num_hidden_layers', timm's \
             model_args.depth)"
        )));
    }
    tensors.retain(|name, _| {
        let block = name.strip_prefix("blocks.").and_then(|rest| rest.split('.').next());
        block
            .and_then(|block| block.parse().ok())
            .is_none_or(|block: usize| block < depth)
    });
    Ok(depth)
}

fn agree(what: &str, said: Option<usize>, found: usize) -> Result<(), Misfit> {
    match said.filter(|said| *said != found) {
        Some(said) => Err(Misfit::Config(format!(
            "{what} is {said} by config.json, or by the architecture that it names, and {found} in the weights; correct \
             the field (timm's 'model_args')"
        ))),
        None => Ok(()),
    }
}

/// The sides of a tensor of `D` axes.
fn dims<const D: usize>(tensors: &Tensors, name: &str) -> Result<[usize; D], Misfit> {
    let stored = tensors.get(name).ok_or_else(|| lacking(tensors, name))?;
    stored.shape[..].try_into().map_err(|_| {
        Misfit::Weights(format!(
            "'{name}' has shape {:?}, expected one of {D} axes",
            stored.shape
        ))
    })
}

fn lacking(tensors: &Tensors, name: &str) -> Misfit {
    let mut names = tensors.keys();
    let found: Vec<String> = names.by_ref().take(3).map(|name| format!("'{name}'")).collect();
    Misfit::Weights(match found.is_empty() {
        true => format!("it has no tensor '{name}' and no other that belongs to the model"),
        false => format!(
            "it has no tensor '{name}'; it has {}{}: are these the weights of the model that config.json describes?",
            found.join(", "),
            if names.next().is_some() { ", …" } else { "" }
        ),
    })
}
