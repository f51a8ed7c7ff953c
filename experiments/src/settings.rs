//! Settings of `vtab`: a TOML preset, every field of which has a flag of the same name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde::{Deserialize, Serialize};

use crate::augment::{Augment, Mix};
use crate::methods;

/// The effective settings of a run folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Folder of task folders; the sample that ships with the repository if absent.
    pub data: Option<PathBuf>,
    /// Tasks, or `all`.
    pub task: Vec<String>,
    /// Methods, by the names in `methods.rs`.
    pub method: Vec<String>,
    /// Backbone: folder (config.json, model.safetensors), file, or hub name; the one that ships if absent.
    pub backbone: Option<String>,
    /// Side of the pictures, pixels; the backbone's own if absent.
    pub image_size: Option<usize>,
    /// Modules that LoRA and WeGeFT adapt.
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
    /// Rank of LoRA.
    pub lora_r: usize,
    /// Numerator of the scale; the rank (scale 1) if absent.
    pub alpha: Option<f64>,
    /// Drop-path of the last block.
    pub drop_path: f64,
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
    /// Learning rates of the grid; each method's of the protocol (section 2.2) if empty.
    pub sweep_lr: Vec<f64>,
    /// Weight decays of the grid; each method's of the protocol if empty.
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
    /// Rank.
    pub r: Option<usize>,
    /// Numerator of the scale.
    pub alpha: Option<f64>,
    /// Modules to adapt.
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
            target_modules: vec!["attn.proj".into()],
            epochs: 20,
            batch_size: 32,
            lr: 1e-2,
            weight_decay: 1e-4,
            r: 16,
            lora_r: 8,
            alpha: None,
            drop_path: 0.0,
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
            device: "flex".into(),
            methods: BTreeMap::new(),
        }
    }
}

/// Fine-tunes a vision transformer on VTAB-style tasks and prints the table of results. With no argument it
/// runs the sample tasks that ship with the repository.
///
/// The run folder holds config.toml (the effective settings), summary.json, report.html and, per task and
/// method, metrics.jsonl, checkpoints/ and adapter/ (Hugging Face PEFT's layout). The same command again goes on
/// where the folder ends: at the last epoch of an unfinished run, or with the runs that are missing.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Preset (TOML); flags override its fields.
    #[arg(long, conflicts_with = "resume")]
    pub config: Option<PathBuf>,
    /// Go on with the run folder given by --out, with the settings it was made with.
    #[arg(long)]
    pub resume: bool,
    /// Run folder.
    #[arg(long, default_value = "runs/vtab")]
    pub out: PathBuf,
    /// Runs side by side, each a process [default: one a device].
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Trials of the run folder that this process does; set by --jobs for the processes it starts.
    #[arg(long, hide = true)]
    pub trial: Vec<PathBuf>,
    /// The settings, one flag a field.
    #[command(flatten)]
    pub flags: Flags,
}

/// One flag per field of [`Settings`].
#[derive(Debug, Default, clap::Args, Serialize)]
pub struct Flags {
    /// Folder of task folders, each with images/, train800.txt, val200.txt, test.txt [default: the shipped sample].
    #[arg(long)]
    data: Option<PathBuf>,
    /// Tasks, separated by commas, or `all` [default: all].
    #[arg(long, value_delimiter = ',')]
    task: Option<Vec<String>>,
    /// Methods, separated by commas [default: linear,lora,wegeft].
    #[arg(long, value_delimiter = ',')]
    method: Option<Vec<String>>,
    /// Backbone: a folder or .safetensors file of timm, Hugging Face ViT or DINOv2, or a hub name org/name
    /// (fetched once; HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are heeded) [default: the shipped one].
    #[arg(long)]
    backbone: Option<String>,
    /// Side of the pictures, pixels; a multiple of the patch size [default: the backbone's].
    #[arg(long)]
    image_size: Option<usize>,
    /// Modules that LoRA and WeGeFT adapt, separated by commas [default: attn.proj].
    #[arg(long, value_delimiter = ',')]
    target_modules: Option<Vec<String>>,
    /// Epochs [default: 20].
    #[arg(long)]
    epochs: Option<usize>,
    /// Pictures a step [default: 32].
    #[arg(long)]
    batch_size: Option<usize>,
    /// Peak learning rate [default: 0.01].
    #[arg(long, allow_negative_numbers = true)]
    lr: Option<f64>,
    /// Weight decay of matrices [default: 0.0001].
    #[arg(long, allow_negative_numbers = true)]
    weight_decay: Option<f64>,
    /// Rank of WeGeFT [default: 16].
    #[arg(long)]
    r: Option<usize>,
    /// Rank of LoRA [default: 8].
    #[arg(long)]
    lora_r: Option<usize>,
    /// Numerator of the scale alpha / r [default: the rank].
    #[arg(long, allow_negative_numbers = true)]
    alpha: Option<f64>,
    /// Drop-path of the last block [default: 0].
    #[arg(long, allow_negative_numbers = true)]
    drop_path: Option<f64>,
    /// Random crops of training pictures that keep at least this share of the area, such as 0.08 [default: none].
    #[arg(long)]
    random_resized_crop: Option<f64>,
    /// Probability that a training picture is mirrored, such as 0.5 [default: 0].
    #[arg(long)]
    flip: Option<f64>,
    /// RandAugment operations a training picture, such as 2 [default: 0].
    #[arg(long)]
    randaugment: Option<usize>,
    /// Magnitude of RandAugment, 0 to 30 [default: 9].
    #[arg(long)]
    randaugment_magnitude: Option<f64>,
    /// Alpha of mixup, such as 0.2; 0 for none [default: 0].
    #[arg(long)]
    mixup: Option<f64>,
    /// Alpha of CutMix, such as 1; 0 for none [default: 0].
    #[arg(long)]
    cutmix: Option<f64>,
    /// Share of each training label that is spread over all classes, such as 0.1 [default: 0].
    #[arg(long)]
    label_smoothing: Option<f64>,
    /// Train on train800 + val200; report the test score only [default: false].
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    final_run: Option<bool>,
    /// Tune learning rate and weight decay of every task and method on train800/val200 first [default: false].
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    sweep: Option<bool>,
    /// Learning rates of the grid, separated by commas [default: the paper's of each method].
    #[arg(long, value_delimiter = ',')]
    sweep_lr: Option<Vec<f64>>,
    /// Weight decays of the grid, separated by commas [default: the paper's of each method].
    #[arg(long, value_delimiter = ',')]
    sweep_weight_decay: Option<Vec<f64>>,
    /// Epochs after which tuning runs stop, on the schedule of --epochs [default: all].
    #[arg(long)]
    tune_epochs: Option<usize>,
    /// Seed [default: 42].
    #[arg(long)]
    seed: Option<u64>,
    /// flex, ndarray, vulkan, cuda:1, … or several, separated by commas, which share the runs [default: flex].
    #[arg(long)]
    device: Option<String>,
}

impl Args {
    /// The preset (or, with --resume, the run folder's settings) with the flags on top, checked.
    ///
    /// # Errors
    /// A preset that cannot be read, an unknown key, a value out of range.
    pub fn settings(&self) -> Result<Settings, String> {
        let base = match (&self.config, self.resume) {
            (Some(path), _) => read(path)?,
            (None, true) => read(&self.out.join("config.toml"))?,
            (None, false) => Settings::default(),
        };
        let mut table = toml::Table::try_from(&base).map_err(|e| e.to_string())?;
        let flags = toml::Table::try_from(&self.flags).map_err(|e| e.to_string())?;
        // A flag speaks for every method, also for those that the preset sets apart.
        let own = table.get_mut("methods").and_then(toml::Value::as_table_mut);
        for method in own.into_iter().flat_map(|methods| methods.iter_mut()) {
            if let (_, toml::Value::Table(fields)) = method {
                fields.retain(|field, _| !flags.contains_key(field));
            }
        }
        table.extend(flags);
        let settings: Settings = table.try_into().map_err(|e: toml::de::Error| e.message().to_string())?;
        settings.check()?;
        Ok(settings)
    }
}

/// Reads a preset.
///
/// # Errors
/// A file that cannot be read, is no TOML, or has an unknown key.
pub fn read(path: &Path) -> Result<Settings, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    toml::from_str(&text).map_err(|e| format!("{}: {}", path.display(), e.message()))
}

impl Settings {
    fn check(&self) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn settings(args: &[&str]) -> Settings {
        let args = [&["vtab"], args].concat();
        Args::try_parse_from(args).unwrap().settings().unwrap()
    }

    #[test]
    fn presets_are_valid_and_the_paper_s_lora_has_scale_one_eighth() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        let preset = |name: &str| folder.join(name).display().to_string();
        settings(&["--config", &preset("quick.toml")]);
        let paper = settings(&["--config", &preset("paper-vtab.toml")]);
        assert_eq!((paper.epochs, paper.tune_epochs, paper.batch_size), (100, Some(50), 32));
        assert!(paper.sweep && paper.final_run && paper.augment().is_off() && paper.drop_path == 0.1);
        let wegeft::Method::Lora(lora) = methods::adapter(&paper, "lora").unwrap().method else {
            panic!("lora is LoRA");
        };
        assert_eq!((lora.r, lora.alpha), (8, 1.0));
        let wegeft::Method::Wegeft(wegeft) = methods::adapter(&paper, "wegeft").unwrap().method else {
            panic!("wegeft is WeGeFT");
        };
        assert_eq!((wegeft.r, wegeft.alpha), (16, 16.0));
    }

    #[test]
    fn a_flag_speaks_for_every_method() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/paper-vtab.toml");
        let folder = folder.display().to_string();
        let changed = settings(&["--config", &folder, "--alpha", "4"]);
        assert_eq!(changed.of_method("lora").alpha, None);
        assert_eq!(changed.of_method("lora").r, Some(8));
        assert_eq!(changed.alpha, Some(4.0));
    }
}
