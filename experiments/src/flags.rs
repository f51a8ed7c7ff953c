//! Command line of `vtab` and `fgvc`.

use std::path::{Path, PathBuf};

use clap::Parser;
use datasets::Resize;
use datasets::fgvc::ClassIds;
use serde::Serialize;

use crate::settings::{Settings, read};
use crate::table::distinct;

/// Fine-tunes a vision transformer on VTAB-style tasks and prints the table of results. With no argument it
/// runs the sample tasks that ship with the repository.
///
/// A task of --data is a folder with train800.txt, val200.txt and test.txt: a line a picture, its path from that
/// folder, a space, and its label (a number from 0). The labels of train800.txt say how many classes there are, unless
/// classes.txt names them, one a line. train800val200.txt is read where the first two lists are missing; --final-run
/// joins them.
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
    /// Folder of task folders with train800.txt, val200.txt, test.txt; or of pictures, a sub-folder a class, with or
    /// without train, val and test above; or of a Hugging Face data set's train-*.parquet, validation-*.parquet and
    /// test-*.parquet [default: the shipped sample].
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
    /// Backbone: a folder or .safetensors file of timm's vit_* and deit*, or of Hugging Face's ViT, DeiT, DINOv2, DINOv3,
    /// CLIP or SigLIP, or a hub name org/name (fetched once; HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are
    /// heeded) [default: the shipped one].
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
    /// Keep only the blocks' inputs for the backward pass and compute each block again: far less memory, half as much time again
    /// [default: false].
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    gradient_checkpointing: Option<bool>,
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
        settings.backbone = settings.backbone.map(absolute_model).transpose()?;
        settings.check()?;
        Ok(settings)
    }
}

/// `path` from the root on.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|e| format!("cannot tell where {} is: {e}", path.display()))
}

/// The path of a model from the root on; a hub name as it is.
pub(crate) fn absolute_model(name: String) -> Result<String, String> {
    match Path::new(&name).exists() {
        true => Ok(absolute(Path::new(&name))?.display().to_string()),
        false => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::methods;

    fn settings(args: &[&str]) -> Settings {
        let args = [&["vtab"], args].concat();
        Args::try_parse_from(args).unwrap().settings().unwrap()
    }

    #[test]
    fn presets_are_valid_and_the_paper_s_lora_has_scale_one_eighth() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        let preset = |name: &str| folder.join(name).display().to_string();
        settings(&["--config", &preset("quick.toml")]);
        let fgvc = settings(&["--config", &preset("paper-fgvc.toml")]);
        assert_eq!(
            (fgvc.tune_epochs, fgvc.final_run, fgvc.of_method("vpt").tokens),
            (Some(25), false, Some(5))
        );
        let paper = settings(&["--config", &preset("paper-vtab.toml")]);
        assert_eq!((paper.epochs, paper.tune_epochs, paper.batch_size), (100, Some(50), 32));
        assert!(paper.sweep && paper.final_run && paper.augment().is_off() && paper.drop_path == 0.1);
        let lora = methods::adapter(&paper, "lora").unwrap();
        let Some(lora) = lora.settings::<wegeft::LoraConfig>() else {
            panic!("lora is LoRA");
        };
        assert_eq!((lora.r, lora.alpha), (8, 1.0));
        let wegeft = methods::adapter(&paper, "wegeft").unwrap();
        let Some(wegeft) = wegeft.settings::<wegeft::WegeftConfig>() else {
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
        let message = read::<Settings>(&path).unwrap_err();
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
