//! What is done to pixels before a model reads them.

use serde::{Deserialize, Serialize};

/// Mean and standard deviation per channel of pixels in 0..1 that a model was pretrained with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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

impl Normalization {
    /// That of ImageNet's pixels.
    pub const IMAGENET: Self = Self {
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };
    /// That of OpenAI's CLIP.
    pub const CLIP: Self = Self {
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
    };
}
