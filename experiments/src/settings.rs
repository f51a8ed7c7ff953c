//! Settings of `vtab` and `fgvc`: a TOML preset, every field of which has a flag of the same name (flags.rs).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use datasets::Resize;
use datasets::fgvc::ClassIds;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::augment::{Augment, Mix};
use crate::{device, methods};

/// The effective settings of a run folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Folder of task folders, or of pictures, a sub-folder a class; the sample that ships with the repository if
    /// absent.
    pub data: Option<PathBuf>,
    /// Tasks, or `all`.
    pub task: Vec<String>,
    /// Methods, by the names in `methods.rs`.
    pub method: Vec<String>,
    /// Backbone: folder (config.json, model.safetensors), file, or hub name; the one that ships if absent.
    pub backbone: Option<String>,
    /// Side of the pictures, pixels; the backbone's own if absent.
    pub image_size: Option<usize>,
    /// How pictures are resized; as the benchmark does if absent.
    pub resize: Option<Resize>,
    /// `fgvc`: how the class ids of the files become labels.
    pub class_ids: ClassIds,
    /// Modules whose weights WeGeFT, LoRA and its kin, VeRA and IA3 adapt.
    pub target_modules: Vec<String>,
    /// Epochs.
    pub epochs: usize,
    /// Pictures a step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Weight decay of matrices (head, phi, psi); biases and norms have none.
    pub weight_decay: f64,
    /// Rank of WeGeFT.
    pub r: usize,
    /// Rank of LoRA and its kin.
    pub lora_r: usize,
    /// Numerator of the scale; the rank (scale 1) if absent.
    pub alpha: Option<f64>,
    /// Drop-path of the last block.
    pub drop_path: f64,
    /// Keep only the blocks' inputs for the backward pass and compute each block again.
    pub gradient_checkpointing: bool,
    /// Random crops of training pictures that keep at least this share of the area; none if absent.
    pub random_resized_crop: Option<f64>,
    /// Probability that a training picture is mirrored.
    pub flip: f64,
    /// RandAugment operations a training picture.
    pub randaugment: usize,
    /// Magnitude of RandAugment, 0 to 30.
    pub randaugment_magnitude: f64,
    /// Alpha of mixup; 0 for none.
    pub mixup: f64,
    /// Alpha of CutMix; 0 for none.
    pub cutmix: f64,
    /// Share of each training label that is spread over all classes.
    pub label_smoothing: f64,
    /// Train on train800 + val200 and report the test score only, as the paper's final runs do.
    pub final_run: bool,
    /// Tune learning rate and weight decay of every task and method on train800/val200 before the run that counts.
    pub sweep: bool,
    /// Learning rates of the grid; each method's of the paper's code if empty.
    pub sweep_lr: Vec<f64>,
    /// Weight decays of the grid; each method's of the paper's code if empty.
    pub sweep_weight_decay: Vec<f64>,
    /// Epochs after which tuning runs stop, on the schedule of `epochs`; all of them if absent.
    pub tune_epochs: Option<usize>,
    /// Seed of head, factors, order and drop-path.
    pub seed: u64,
    /// Device; several, separated by commas, share the runs.
    pub device: String,
    /// `[methods.NAME]`: settings of one method that differ from those of all.
    pub methods: BTreeMap<String, MethodSettings>,
}

/// Settings of one method; what is absent is as for all methods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MethodSettings {
    /// Rank; number of prompt tokens (vpt, vpt-shallow); width of the bottleneck (houlsby, pfeiffer).
    pub r: Option<usize>,
    /// Numerator of the scale.
    pub alpha: Option<f64>,
    /// Prompt tokens of VPT.
    pub tokens: Option<usize>,
    /// Modules (or places, for the methods that act on activations) to adapt.
    pub target_modules: Option<Vec<String>>,
    /// Peak learning rate.
    pub lr: Option<f64>,
    /// Weight decay.
    pub weight_decay: Option<f64>,
    /// Learning rates of the grid.
    pub sweep_lr: Option<Vec<f64>>,
    /// Weight decays of the grid.
    pub sweep_weight_decay: Option<Vec<f64>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: None,
            task: vec!["all".into()],
            method: vec!["linear".into(), "lora".into(), "wegeft".into()],
            backbone: None,
            image_size: None,
            resize: None,
            class_ids: ClassIds::Joint,
            target_modules: vec!["attn.proj".into()],
            epochs: 20,
            batch_size: 32,
            lr: 1e-2,
            weight_decay: 1e-4,
            r: 16,
            lora_r: 8,
            alpha: None,
            drop_path: 0.0,
            gradient_checkpointing: false,
            random_resized_crop: None,
            flip: 0.0,
            randaugment: 0,
            randaugment_magnitude: 9.0,
            mixup: 0.0,
            cutmix: 0.0,
            label_smoothing: 0.0,
            final_run: false,
            sweep: false,
            sweep_lr: Vec::new(),
            sweep_weight_decay: Vec::new(),
            tune_epochs: None,
            seed: 42,
            device: device::DEFAULT.into(),
            methods: BTreeMap::new(),
        }
    }
}

/// Reads a preset.
///
/// # Errors
/// A file that cannot be read, is no TOML, or has an unknown key.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    toml::from_str(&text).map_err(|e: toml::de::Error| {
        let (at, path) = (e.span().map_or(0, |span| span.start), path.display());
        let number = text[..at].matches('\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default().trim();
        format!("{path}, line {number} ('{line}'): {}", e.message().replace('\n', " "))
    })
}

impl Settings {
    /// Refuses what no run can be made with.
    ///
    /// # Errors
    /// A value out of range, an unknown method.
    pub fn check(&self) -> Result<(), String> {
        let positive = [
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("r", self.r),
            ("lora_r", self.lora_r),
            ("image_size", self.image_size.unwrap_or(1)),
            ("tune_epochs", self.tune_epochs.unwrap_or(1)),
        ];
        if let Some((field, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("field '{field}' is 0; it must be at least 1"));
        }
        for (field, values) in [("task", &self.task), ("method", &self.method)] {
            if values.iter().all(|value| value.trim().is_empty()) {
                return Err(format!("field '{field}' is empty; name at least one"));
            }
        }
        if let Some(alpha) = self.alpha.filter(|alpha| !alpha.is_finite()) {
            return Err(format!("field 'alpha' is {alpha}; it must be a finite number"));
        }
        if self.tune_epochs.is_some_and(|epochs| epochs > self.epochs) {
            return Err(format!(
                "field 'tune_epochs' is above 'epochs' ({}), whose schedule the tuning runs keep",
                self.epochs
            ));
        }
        let own = |values: fn(&MethodSettings) -> Vec<f64>| self.methods.values().flat_map(values).collect::<Vec<_>>();
        let rates = own(|m| m.lr.into_iter().chain(m.sweep_lr.clone().unwrap_or_default()).collect());
        let decays = own(|m| {
            let grid = m.sweep_weight_decay.clone().unwrap_or_default();
            m.weight_decay.into_iter().chain(grid).collect()
        });
        let rates = [&[self.lr], &self.sweep_lr[..], &rates].concat();
        if let Some(lr) = rates.iter().find(|lr| !(lr.is_finite() && **lr > 0.0)) {
            return Err(format!("field 'lr' (or 'sweep_lr') is {lr}; it must be above 0"));
        }
        let decays = [&[self.weight_decay], &self.sweep_weight_decay[..], &decays].concat();
        if let Some(decay) = decays.iter().find(|decay| !(decay.is_finite() && **decay >= 0.0)) {
            return Err(format!(
                "field 'weight_decay' (or 'sweep_weight_decay') is {decay}; it must be 0 or more"
            ));
        }
        if !(0.0..1.0).contains(&self.drop_path) {
            return Err(format!("field 'drop_path' is {}; it must be in [0, 1)", self.drop_path));
        }
        let augment = [
            (
                "random_resized_crop",
                self.random_resized_crop.unwrap_or(1.0),
                f64::MIN_POSITIVE..=1.0,
            ),
            ("flip", self.flip, 0.0..=1.0),
            ("randaugment_magnitude", self.randaugment_magnitude, 0.0..=30.0),
            ("mixup", self.mixup, 0.0..=f64::MAX),
            ("cutmix", self.cutmix, 0.0..=f64::MAX),
            ("label_smoothing", self.label_smoothing, 0.0..=1.0),
        ];
        if let Some((field, value, range)) = augment.iter().find(|(_, value, range)| !range.contains(value)) {
            let (low, high) = (range.start(), range.end());
            return Err(format!(
                "field '{field}' is {value}; it must be in {low:.0} to {high:e}"
            ));
        }
        for method in self.method.iter().chain(self.methods.keys()) {
            methods::adapter(self, method)?;
        }
        Ok(())
    }

    /// What the settings say of one method alone.
    pub fn of_method(&self, method: &str) -> MethodSettings {
        self.methods.get(method).cloned().unwrap_or_default()
    }

    /// Peak learning rate and weight decay of a method where they are not tuned.
    pub fn rates(&self, method: &str) -> (f64, f64) {
        let own = self.of_method(method);
        (own.lr.unwrap_or(self.lr), own.weight_decay.unwrap_or(self.weight_decay))
    }

    /// What happens to training pictures.
    pub fn augment(&self) -> Augment {
        Augment {
            crop_scale: self.random_resized_crop,
            flip: self.flip,
            operations: self.randaugment,
            magnitude: self.randaugment_magnitude,
            mix: Mix {
                mixup: self.mixup,
                cutmix: self.cutmix,
                label_smoothing: self.label_smoothing,
            },
        }
    }

    /// The devices, at least one.
    pub fn devices(&self) -> Vec<String> {
        self.device.split(',').map(|name| name.trim().to_string()).collect()
    }
}
