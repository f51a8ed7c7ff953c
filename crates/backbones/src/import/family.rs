//! Families of checkpoints: how a config.json tells which one it is, and which tensors belong to it.

use serde_json::Value;

use crate::normalization::Normalization;

/// Ends of the name of the weight that embeds patches, in all families.
pub(super) const ANCHORS: [&str; 4] = [
    "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embeddings.weight",
    "embeddings.patch_embedding.weight",
];

/// The prefixes under which models with a head keep the one without.
pub(super) const BASES: [&str; 5] = ["dinov2_with_registers.", "vision_model.", "dinov2.", "deit.", "vit."];

/// Who wrote a checkpoint, and so its names and defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// timm's `vit_*` and `deit*`.
    Timm,
    /// Hugging Face ViT.
    Vit,
    /// Hugging Face DeiT: with a distillation token.
    Deit,
    /// DINOv2, with or without registers.
    Dinov2,
    /// DINOv3.
    Dinov3,
    /// CLIP's vision tower.
    Clip,
    /// SigLIP's vision tower.
    Siglip,
}

impl Family {
    /// The family that a config.json names.
    pub(crate) fn of(json: &Value) -> Result<Self, String> {
        if json.get("architecture").is_some_and(Value::is_string) {
            return Ok(Self::Timm);
        }
        match json.get("model_type").and_then(Value::as_str).unwrap_or("") {
            "vit" => Ok(Self::Vit),
            "deit" => Ok(Self::Deit),
            "dinov2" | "dinov2_with_registers" => Ok(Self::Dinov2),
            "dinov3_vit" => Ok(Self::Dinov3),
            "clip" | "clip_vision_model" => Ok(Self::Clip),
            "siglip" | "siglip_vision_model" => Ok(Self::Siglip),
            other => Err(format!(
                "field 'model_type' is '{other}'; implemented are vit, deit, dinov2, dinov2_with_registers, dinov3_vit, \
                 clip, siglip, and timm's vit_* and deit* (field 'architecture')"
            )),
        }
    }

    /// The part of a config.json that speaks of the vision transformer.
    pub(super) fn settings(self, json: &Value) -> &Value {
        match self {
            Self::Clip | Self::Siglip => json.get("vision_config").unwrap_or(json),
            _ => json,
        }
    }

    /// False for tensors that no forward pass of the vision transformer reads: text towers, pretraining heads.
    pub(super) fn reads(self, name: &str) -> bool {
        let last = |part: &&str| {
            name.strip_suffix(*part)
                .is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let skipped = match self {
            Self::Clip | Self::Siglip => {
                name.contains("text_")
                    || name.contains("position_ids")
                    || ["logit_scale", "logit_bias", "visual_projection.weight"]
                        .iter()
                        .any(last)
            }
            _ => false,
        };
        !skipped && !name.ends_with("mask_token") && !name.starts_with("pooler.") && !name.contains(".pooler.")
    }

    /// The prefix under which the model with a head keeps the one without.
    pub(crate) fn base_prefix(self, json: &Value) -> &'static str {
        match self {
            Self::Timm => "",
            Self::Vit => "vit.",
            Self::Deit => "deit.",
            Self::Dinov2 => match json.get("model_type").and_then(Value::as_str) {
                Some("dinov2_with_registers") => "dinov2_with_registers.",
                _ => "dinov2.",
            },
            Self::Dinov3 => "",
            Self::Clip | Self::Siglip => "vision_model.",
        }
    }

    /// Normalisation where no file names one.
    pub(crate) fn normalization(self) -> Normalization {
        match self {
            Self::Vit | Self::Siglip => Normalization::default(),
            Self::Timm | Self::Deit | Self::Dinov2 | Self::Dinov3 => Normalization::IMAGENET,
            Self::Clip => Normalization::CLIP,
        }
    }
}

/// Names of modules that people wrap a model in; they stand before the names of its tensors.
const WRAPPERS: [&str; 5] = ["module.", "_orig_mod.", "model.", "timm_model.", "backbone."];

/// `name` without the wrappers before it.
pub(super) fn unwrapped(mut name: &str) -> &str {
    while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
        name = rest;
    }
    name
}
