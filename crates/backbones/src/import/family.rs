//! Families of checkpoints: how a config.json tells which one it is, and what it leaves unsaid.

use serde_json::Value;

use super::Normalization;
use crate::vit::Activation;

/// Who wrote a checkpoint, and so its names and defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
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
    pub(super) fn of(json: &Value) -> Result<Self, String> {
        if let Some(name) = json.get("architecture").and_then(Value::as_str) {
            return match name.starts_with("vit_") || name.starts_with("deit") {
                true => Ok(Self::Timm),
                false => Err(format!(
                    "field 'architecture' is '{name}'; of timm's models implemented are vit_* and deit*"
                )),
            };
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
        let skipped = match self {
            Self::Timm => name.starts_with("head_dist."),
            Self::Deit => name.contains("classifier."),
            Self::Clip | Self::Siglip => {
                name.contains("text_")
                    || name.contains("position_ids")
                    || matches!(name, "logit_scale" | "logit_bias" | "visual_projection.weight")
            }
            _ => false,
        };
        !skipped && !name.ends_with("mask_token") && !name.starts_with("pooler.") && !name.contains(".pooler.")
    }

    /// Activation where config.json does not name one.
    pub(super) fn activation(self) -> Activation {
        match self {
            Self::Clip => Activation::QuickGelu,
            Self::Siglip => Activation::GeluPytorchTanh,
            _ => Activation::Gelu,
        }
    }

    /// Epsilon of the norms where config.json does not name one.
    pub(super) fn layer_norm_eps(self) -> f64 {
        match self {
            Self::Clip | Self::Dinov3 => 1e-5,
            _ => 1e-6,
        }
    }

    /// Normalisation where no file names one.
    pub(super) fn normalization(self) -> Normalization {
        match self {
            Self::Timm | Self::Vit | Self::Siglip => Normalization::default(),
            Self::Deit | Self::Dinov2 | Self::Dinov3 => Normalization {
                mean: [0.485, 0.456, 0.406],
                std: [0.229, 0.224, 0.225],
            },
            Self::Clip => Normalization {
                mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
                std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            },
        }
    }
}
