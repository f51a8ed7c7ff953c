//! The `vtab` experiment: every task with every method, into one run folder.

use std::path::{Path, PathBuf};

use backbones::{load_vit, resolve};
use burn::train::Interrupter;
use datasets::{Task, root, sample};
use wegeft::storage::write_then_rename;

use crate::report;
use crate::run::{Outcome, RunError, Setting, run, write_json};
use crate::settings::{Args, Settings, read};
use crate::table::table;

/// Folder of the backbone that ships with the repository.
pub fn shipped_backbone() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/backbone")
}

/// Runs what `args` ask for and returns the outcomes of the whole run folder; `interrupter` stops it.
///
/// # Errors
/// One sentence: bad settings, data or weights, a run that failed, an interruption.
pub fn vtab(args: &Args, interrupter: &Interrupter) -> Result<Vec<Outcome>, String> {
    let settings = args.settings()?;
    let device = crate::device::device(&settings.device)?.autodiff();
    let backbone = match &settings.backbone {
        Some(name) => resolve(name).map_err(|e| e.to_string())?,
        None => shipped_backbone(),
    };
    let backbone = load_vit(&backbone, settings.image_size, settings.drop_path, &device).map_err(|e| e.to_string())?;
    let names = names(&settings)?;
    let mut outcomes = open(&args.out, &settings)?;
    let setting = Setting {
        settings: &settings,
        backbone: &backbone,
        device: &device,
        interrupter,
    };
    let mut done = 0;
    for name in names {
        let is_left = |method: &&String| !outcomes.iter().any(|o| o.task == name && o.method == **method);
        let left: Vec<&String> = settings.method.iter().filter(is_left).collect();
        if left.is_empty() {
            continue;
        }
        let task = load(&settings, &name, backbone.config.image_size)?;
        let parts = [&task.train, &task.valid, &task.test];
        let count: usize = parts.iter().map(|part| part.len()).sum();
        let bytes: usize = parts.iter().map(|part| part.kept_bytes()).sum();
        println!(
            "{name}: {count} pictures, {:.1} MB of them kept decoded",
            bytes as f64 / 1e6
        );
        for method in left {
            let folder = args.out.join(&name).join(method);
            match run(&setting, &task, method, &folder) {
                Ok(outcome) => {
                    println!(
                        "  test top-1 {:.1}, {:.1} s, {:.1} steps/s, peak memory {} MB",
                        outcome.value,
                        outcome.seconds,
                        outcome.steps_per_second,
                        outcome.peak_rss_mb.map_or("?".into(), |mb| format!("{mb:.0}"))
                    );
                    outcomes.push(outcome);
                }
                Err(error @ RunError::Interrupted) => return Err(error.to_string()),
                Err(RunError::Failed(message)) => return Err(message),
            }
            write_json(&args.out.join("summary.json"), &outcomes)?;
            done += 1;
        }
    }
    let report = args.out.join("report.html");
    if done > 0 || !report.is_file() {
        report::write(&args.out, &outcomes)?;
    } else {
        println!("{} is finished; choose another --out to run again", args.out.display());
    }
    println!("{}\n\nreport: {}", table(&outcomes), report.display());
    Ok(outcomes)
}

/// Makes or reopens the run folder: what it already holds is kept if its settings are the same.
fn open(out: &Path, settings: &Settings) -> Result<Vec<Outcome>, String> {
    std::fs::create_dir_all(out).map_err(|e| format!("cannot make {}: {e}; choose another --out", out.display()))?;
    let config = out.join("config.toml");
    if config.exists() {
        if read(&config)? != *settings {
            return Err(format!(
                "{} was made with other settings; choose another --out, give --resume to go on with its own, or remove it",
                out.display()
            ));
        }
    } else {
        let text = toml::to_string(settings).map_err(|e| e.to_string())?;
        write_then_rename(&config, text.as_bytes()).map_err(|e| e.to_string())?;
    }
    let summary = out.join("summary.json");
    match std::fs::read_to_string(&summary) {
        Ok(text) => {
            serde_json::from_str(&text).map_err(|e| format!("{} is damaged ({e}); remove it", summary.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("cannot read {}: {error}", summary.display())),
    }
}

fn names(settings: &Settings) -> Result<Vec<String>, String> {
    let known: Vec<String> = match &settings.data {
        Some(root) => root::tasks(root).map_err(|e| e.to_string())?,
        None => sample::NAMES.iter().map(|name| name.to_string()).collect(),
    };
    if settings.task.iter().any(|task| task == "all") {
        return Ok(known);
    }
    match settings.task.iter().find(|task| !known.contains(task)) {
        Some(task) => Err(format!("task '{task}' is unknown; there are: {}", known.join(", "))),
        None => Ok(settings.task.clone()),
    }
}

fn load(settings: &Settings, name: &str, size: usize) -> Result<Task, String> {
    if let Some(root) = &settings.data {
        let resize = settings.resize.unwrap_or_default();
        let task = root::task(root, name, size, resize).and_then(Task::keep);
        return task.map_err(|e| e.to_string());
    }
    if size != sample::SIZE {
        return Err(format!(
            "the sample's pictures are {} px, the backbone wants {size} px; give --data, or --image-size {0}",
            sample::SIZE
        ));
    }
    sample::task(name).ok_or_else(|| format!("task '{name}' is unknown"))
}
