//! Settings of `vtab`: a TOML preset, every field of which has a flag of the same name.

use std::path::{Path, PathBuf};

use clap::Parser;
use datasets::Resize;
use serde::{Deserialize, Serialize};
use wegeft::{AdapterConfig, Method};

/// The effective settings of a run folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Folder of task folders, or of pictures, a sub-folder a class; the sample that ships with the repository if
    /// absent.
    pub data: Option<PathBuf>,
    /// Tasks, or `all`.
    pub task: Vec<String>,
    /// linear, lora, wegeft, full.
    pub method: Vec<String>,
    /// Backbone: folder (config.json, model.safetensors), file, or hub name; the one that ships if absent.
    pub backbone: Option<String>,
    /// Side of the pictures, pixels; the backbone's own if absent.
    pub image_size: Option<usize>,
    /// How pictures are resized; as the benchmark does if absent.
    pub resize: Option<Resize>,
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
    /// Train on train800 + val200 and report the test score only, as the paper's final runs do.
    pub final_run: bool,
    /// Seed of head, factors, order and drop-path.
    pub seed: u64,
    /// Device.
    pub device: String,
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
            target_modules: vec!["attn.proj".into()],
            epochs: 20,
            batch_size: 32,
            lr: 1e-2,
            weight_decay: 1e-4,
            r: 16,
            lora_r: 8,
            alpha: None,
            drop_path: 0.0,
            final_run: false,
            seed: 42,
            device: "flex".into(),
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
    /// The settings, one flag a field.
    #[command(flatten)]
    pub flags: Flags,
}

/// One flag per field of [`Settings`].
#[derive(Debug, Default, clap::Args, Serialize)]
pub struct Flags {
    /// Folder of task folders with train800.txt, val200.txt, test.txt, or of pictures, a sub-folder a class, with or
    /// without train, val and test above [default: the shipped sample].
    #[arg(long)]
    data: Option<PathBuf>,
    /// Tasks, separated by commas, or `all` [default: all].
    #[arg(long, value_delimiter = ',')]
    task: Option<Vec<String>>,
    /// Methods, separated by commas: linear, lora, wegeft, full [default: linear,lora,wegeft].
    #[arg(long, value_delimiter = ',')]
    method: Option<Vec<String>>,
    /// Backbone: a folder or .safetensors file of timm, Hugging Face ViT or DINOv2, or a hub name org/name
    /// (fetched once; HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are heeded) [default: the shipped one].
    #[arg(long)]
    backbone: Option<String>,
    /// Side of the pictures, pixels; a multiple of the patch size [default: the backbone's].
    #[arg(long)]
    image_size: Option<usize>,
    /// How pictures are resized: bilinear (no antialiasing), bilinear-antialias, bicubic, lanczos (the whole picture,
    /// aspect ignored), or crop (the shorter side, then a square: random in training, central in tests)
    /// [default: bilinear, as VTAB-1k].
    #[arg(long)]
    resize: Option<Resize>,
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
    /// Train on train800 + val200; report the test score only [default: false].
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    final_run: Option<bool>,
    /// Seed [default: 42].
    #[arg(long)]
    seed: Option<u64>,
    /// flex, ndarray, vulkan, cuda:1, … [default: flex].
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
        table.extend(toml::Table::try_from(&self.flags).map_err(|e| e.to_string())?);
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
        ];
        if let Some((field, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("field '{field}' is 0; it must be at least 1"));
        }
        if !(self.lr.is_finite() && self.lr > 0.0) {
            return Err(format!("field 'lr' is {}; it must be above 0", self.lr));
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return Err(format!(
                "field 'weight_decay' is {}; it must be 0 or more",
                self.weight_decay
            ));
        }
        if !(0.0..1.0).contains(&self.drop_path) {
            return Err(format!("field 'drop_path' is {}; it must be in [0, 1)", self.drop_path));
        }
        for method in &self.method {
            self.adapter(method)?;
        }
        Ok(())
    }

    /// The adapter of that method name; the head is trained in full by all of them.
    ///
    /// # Errors
    /// An unknown method.
    pub fn adapter(&self, method: &str) -> Result<AdapterConfig, String> {
        let mut config = match method {
            "linear" => AdapterConfig::new(Method::Linear),
            "full" => AdapterConfig::new(Method::Full),
            "lora" => AdapterConfig::lora(self.lora_r).with_target_modules(self.target_modules.clone()),
            "wegeft" => AdapterConfig::wegeft(self.r).with_target_modules(self.target_modules.clone()),
            other => {
                return Err(format!(
                    "method '{other}' is unknown; choose linear, lora, wegeft or full"
                ));
            }
        };
        if let Some(value) = self.alpha {
            match &mut config.method {
                Method::Lora(lora) => lora.alpha = value,
                Method::Wegeft(wegeft) => wegeft.alpha = value,
                Method::Linear | Method::Full => {}
            }
        }
        Ok(config.with_modules_to_save(["head"]))
    }
}
