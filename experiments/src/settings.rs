//! Settings of `vtab`: a TOML preset, every field of which has a flag of the same name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Parser;
use datasets::Resize;
use datasets::fgvc::ClassIds;
use serde::{Deserialize, Serialize};

use crate::augment::{Augment, Mix};
use crate::table::distinct;
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

/// Fine-tunes a vision transformer on VTAB-style tasks and prints the table of results. With no argument it
/// runs the sample tasks that ship with the repository.
///
/// A task of --data is a folder with train800.txt, val200.txt and test.txt: a line a picture, its path from that
/// folder, a space, and its label (a number from 0). The labels of train800.txt say how many classes there are, unless
/// classes.txt names them, one a line. train800val200.txt is not read: --final-run joins the two lists.
///
/// The run folder holds config.toml (the effective settings), summary.json, report.html and, per task and
/// method, metrics.jsonl, samples.json, checkpoints/ and adapter/ (Hugging Face PEFT's layout, and classifier.json with
/// the classes and the backbone for `predict`). The same command again goes on where the folder ends: at the last epoch
/// of an unfinished run, or with the runs that are missing.
///
/// In a terminal the arrow keys choose what is drawn, q then s stops after the step, q then k stops at once. Ctrl-C
/// stops after the step, a second one at once; what is finished is kept. Exit codes: 0 done; 1 failed or interrupted,
/// with one sentence that says why; 2 unknown flags; 130 ended by a second Ctrl-C.
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
    /// Folder of task folders with train800.txt, val200.txt, test.txt, or of pictures, a sub-folder a class, with or
    /// without train, val and test above [default: the shipped sample].
    #[arg(long)]
    data: Option<PathBuf>,
    /// Tasks, separated by commas, or `all` [default: all].
    #[arg(long, value_delimiter = ',')]
    task: Option<Vec<String>>,
    /// Methods, separated by commas: linear, full, wegeft, wegeft_unshared, lora, rslora, lora_plus, lora_fa, dora, pissa,
    /// olora, vera, ia3, bitfit, layer_norm, vpt, vpt_shallow, loreft, direft, houlsby, pfeiffer
    /// [default: linear,lora,wegeft].
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
    /// [default: bilinear, as VTAB-1k; fgvc: crop].
    #[arg(long)]
    resize: Option<Resize>,
    /// fgvc: joint maps the class ids of all splits at once; per-split maps each split's by themselves as the paper's
    /// released code does, which shifts labels where a split lacks a class [default: joint].
    #[arg(long)]
    class_ids: Option<ClassIds>,
    /// Modules whose weights WeGeFT, LoRA and its kin, VeRA and IA3 adapt, separated by commas [default: attn.proj].
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
    /// Rank of LoRA and its kin [default: 8].
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
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    /// flex, ndarray, vulkan, cuda:1, … or several, separated by commas, which share the runs [default: flex, or what
    /// was compiled in in its place].
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
        let flags = toml::Table::try_from(&self.flags)
            .map_err(|e| format!("a number among the flags is too large for config.toml ({e}); give a smaller one"))?;
        // A flag speaks for every method, also for those that the preset sets apart.
        let own = table.get_mut("methods").and_then(toml::Value::as_table_mut);
        for method in own.into_iter().flat_map(|methods| methods.iter_mut()) {
            if let (_, toml::Value::Table(fields)) = method {
                fields.retain(|field, _| !flags.contains_key(field));
            }
        }
        table.extend(flags);
        let mut settings: Settings = table.try_into().map_err(|e: toml::de::Error| e.message().to_string())?;
        settings.task = distinct(settings.task.into_iter());
        settings.method = distinct(settings.method.into_iter());
        // Paths from the root on: a run folder goes on, and an adapter is read, from any working folder.
        settings.data = settings.data.map(|path| absolute(&path)).transpose()?;
        if let Some(name) = settings.backbone.take() {
            settings.backbone = Some(match Path::new(&name).exists() {
                true => absolute(Path::new(&name))?.display().to_string(),
                false => name,
            });
        }
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
    toml::from_str(&text).map_err(|e: toml::de::Error| {
        let (at, path) = (e.span().map_or(0, |span| span.start), path.display());
        let number = text[..at].matches('\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default().trim();
        format!("{path}, line {number} ('{line}'): {}", e.message().replace('\n', " "))
    })
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|e| format!("cannot tell where {} is: {e}", path.display()))
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use clap::CommandFactory;

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

    #[test]
    fn help_states_the_defaults_that_hold() {
        let command = Args::command();
        let mut seen = 0;
        for (field, value) in toml::Table::try_from(Settings::default()).unwrap() {
            let text = match value {
                toml::Value::Table(_) => continue,
                toml::Value::Array(values) if values.is_empty() => continue,
                toml::Value::Array(values) => {
                    let names: Vec<&str> = values.iter().filter_map(toml::Value::as_str).collect();
                    names.join(",")
                }
                toml::Value::String(text) => text,
                toml::Value::Float(number) => number.to_string(),
                other => other.to_string(),
            };
            let flag = command
                .get_arguments()
                .find(|flag| flag.get_id() == field.as_str())
                .unwrap();
            let help = flag.get_help().unwrap().to_string();
            assert!(
                help.contains(&format!("[default: {text}")),
                "{field} is {text}, the help says: {help}"
            );
            seen += 1;
        }
        assert!(seen > 12, "{seen}");
    }

    #[test]
    fn a_wrong_value_in_a_preset_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("preset.toml");
        std::fs::write(&path, "lr = 1e-3\nepochs = \"x\"\n").unwrap();
        let message = read(&path).unwrap_err();
        for part in ["preset.toml, line 2 ('epochs = \"x\"')", "invalid type", "usize"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn names_count_once_and_paths_are_from_the_root_on() {
        let args = Args::parse_from([
            "vtab",
            "--method",
            "lora,lora",
            "--data",
            "some/where",
            "--backbone",
            "src",
        ]);
        let settings = args.settings().unwrap();
        assert_eq!(settings.method, ["lora"]);
        assert!(settings.data.unwrap().is_absolute());
        assert!(Path::new(&settings.backbone.unwrap()).is_absolute());
        let named = Args::parse_from(["vtab", "--backbone", "org/name"]).settings().unwrap();
        assert_eq!(named.backbone.as_deref(), Some("org/name"));
        for arguments in [["vtab", "--method", ""], ["vtab", "--task", ""]] {
            assert!(Args::parse_from(arguments).settings().unwrap_err().contains("is empty"));
        }
        assert!(Args::try_parse_from(["vtab", "--seed", "18446744073709551615"]).is_err());
    }
}
