//! Settings of the programs that adapt vision transformers.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueHint};
use datasets::Resize;
use serde::{Deserialize, Serialize};

use crate::cli::settings::{absolute, absolute_model};
use crate::cli::table::distinct;
use crate::methods::{Adapter, OwnSettings, Wing};
use crate::run::args::Execution;
use crate::run::sweep::Sweep;
use crate::train::precision::Dtype;
use crate::train::settings::Training;
use crate::vision::augment::{Augment, Mix};
use crate::vision::description::check_image_size;

/// The backbone.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Model")]
pub struct Model {
    /// Backbone: a folder or .safetensors file of timm's vit_* and deit*, or of Hugging Face's ViT, DeiT, DINOv2,
    /// DINOv3, CLIP or SigLIP, or a hub name org/name (downloaded once; HF_ENDPOINT, HF_HOME, HF_TOKEN and
    /// HF_HUB_OFFLINE are respected) [default: the one that ships with the program].
    #[arg(long, alias = "backbone", value_hint = ValueHint::AnyPath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Side length of the images, pixels; a multiple of the patch size [default: the backbone's].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// Data type of the frozen weights of linear layers in memory, and on a GPU of the activations; trained parameters, norms and
    /// losses are f32.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// Drop-path rate of the last block.
    #[arg(long, default_value_t = 0.0)]
    pub drop_path: f64,
}

/// The images and their augmentation.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Data")]
pub struct Data {
    /// Folder of task folders with train800.txt, val200.txt, test.txt; or of images, with one sub-folder per class or
    /// with a metadata.csv, .jsonl or .parquet of their names and labels, optionally inside train, val and test; or of a
    /// Hugging Face dataset's train-*.parquet, validation-*.parquet and test-*.parquet.
    #[arg(long, value_hint = ValueHint::DirPath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Tasks, separated by commas, or `all`.
    #[arg(long, alias = "sets", value_delimiter = ',', default_value = "all")]
    pub task: Vec<String>,
    /// How images are resized. The filters resize the whole image and ignore its aspect ratio: bilinear without
    /// antialiasing, the others with it. crop resizes the shorter side and cuts out a square, at random in training and
    /// in the centre in tests. model does what the backbone's own files say (preprocessor_config.json,
    /// processor_config.json, timm's pretrained_cfg) [default: the benchmark's].
    #[arg(long, value_parser = PossibleValuesParser::new(Resize::NAMES).try_map(|name| name.parse::<Resize>()))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// Maximum pixels per image; a larger image is refused by name before it is decoded [default: 134 million].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_image_pixels: Option<u64>,
    /// Train on train800 + val200 and report only the test score.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = false, action = clap::ArgAction::Set)]
    pub final_run: bool,
    /// Crop training images at random, keeping at least this fraction of the area, such as 0.08 [default: no crops].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_resized_crop: Option<f64>,
    /// Probability of mirroring a training image, such as 0.5.
    #[arg(long, default_value_t = 0.0)]
    pub flip: f64,
    /// RandAugment operations per training image, such as 2.
    #[arg(long, default_value_t = 0)]
    pub randaugment: usize,
    /// Magnitude of RandAugment, 0 to 30.
    #[arg(long, default_value_t = 9.0)]
    pub randaugment_magnitude: f64,
    /// Alpha of mixup, such as 0.2; 0 turns it off.
    #[arg(long, default_value_t = 0.0)]
    pub mixup: f64,
    /// Alpha of CutMix, such as 1; 0 turns it off.
    #[arg(long, default_value_t = 0.0)]
    pub cutmix: f64,
    /// Fraction of each training label that is spread over all classes, such as 0.1.
    #[arg(long, default_value_t = 0.0)]
    pub label_smoothing: f64,
}

/// The effective settings of a run.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
pub struct Settings {
    /// The images.
    #[command(flatten)]
    #[serde(flatten)]
    pub data: Data,
    /// The backbone.
    #[command(flatten)]
    #[serde(flatten)]
    pub model: Model,
    /// The adapters.
    #[command(flatten)]
    #[serde(flatten)]
    pub adapter: Adapter,
    /// How they are trained.
    #[command(flatten)]
    #[serde(flatten)]
    pub training: Training,
    /// How they are tuned.
    #[command(flatten)]
    #[serde(flatten)]
    pub sweep: Sweep,
    /// Seeds and devices.
    #[command(flatten)]
    #[serde(flatten)]
    pub execution: Execution,
    /// `[methods.NAME]`: settings of one method that override those of all methods.
    #[arg(skip)]
    #[serde(default)]
    pub methods: OwnSettings,
}

impl Settings {
    /// Normalizes paths and names and refuses invalid settings.
    ///
    /// # Errors
    /// A value out of range, an unknown method.
    pub fn check(&mut self) -> Result<(), String> {
        let data = &mut self.data;
        data.task = distinct(
            std::mem::take(&mut data.task)
                .into_iter()
                .filter(|name| !name.trim().is_empty()),
        );
        if data.task.is_empty() {
            return Err("field 'task' is empty; name at least one".into());
        }
        // Absolute paths, so that a run folder can be resumed and an adapter be read from any working folder.
        data.data = data.data.take().map(|path| absolute(&path)).transpose()?;
        self.model.model = self.model.model.take().map(absolute_model).transpose()?;
        if let Some(size) = self.model.image_size {
            check_image_size("field 'image_size'", size)?;
        }
        if self.data.max_image_pixels == Some(0) {
            return Err("field 'max_image_pixels' is 0; it must be at least 1".into());
        }
        self.training.check()?;
        self.sweep.check(self.training.epochs)?;
        self.execution.check()?;
        self.adapter.check(&self.methods, Wing::Vision)?;
        if !(0.0..1.0).contains(&self.model.drop_path) {
            return Err(format!(
                "field 'drop_path' is {}; it must be in [0, 1)",
                self.model.drop_path
            ));
        }
        if let (Some(field), true) = (self.training.judges(), self.data.final_run) {
            return Err(format!(
                "{field}, which needs validation images to judge by; leave final_run out"
            ));
        }
        let augment = [
            (
                "random_resized_crop",
                self.data.random_resized_crop.unwrap_or(1.0),
                f64::MIN_POSITIVE..=1.0,
            ),
            ("flip", self.data.flip, 0.0..=1.0),
            ("randaugment_magnitude", self.data.randaugment_magnitude, 0.0..=30.0),
            ("mixup", self.data.mixup, 0.0..=f64::MAX),
            ("cutmix", self.data.cutmix, 0.0..=f64::MAX),
            ("label_smoothing", self.data.label_smoothing, 0.0..=1.0),
        ];
        match augment.iter().find(|(_, value, range)| !range.contains(value)) {
            Some((field, value, range)) => {
                let allowed = match (*range.start(), *range.end()) {
                    (_, f64::MAX) => "0 or more".into(),
                    (f64::MIN_POSITIVE, high) => format!("above 0 and at most {high}"),
                    (low, high) => format!("from {low} to {high}"),
                };
                Err(format!("field '{field}' is {value}; it must be {allowed}"))
            }
            None => Ok(()),
        }
    }

    /// What happens to training images.
    pub fn augment(&self) -> Augment {
        let data = &self.data;
        Augment {
            crop_scale: data.random_resized_crop,
            flip: data.flip,
            operations: data.randaugment,
            magnitude: data.randaugment_magnitude,
            mix: Mix {
                mixup: data.mixup,
                cutmix: data.cutmix,
                label_smoothing: data.label_smoothing,
            },
        }
    }

    /// True if the output of a frozen layer for a training image differs from epoch to epoch.
    pub fn is_random(&self) -> bool {
        self.model.drop_path > 0.0 || !self.augment().is_off()
    }
}
