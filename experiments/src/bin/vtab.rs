//! Fine-tunes a vision transformer on VTAB-style tasks.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use backbones::import::load_vit;
use burn::train::Interrupter;
use clap::Parser;
use datasets::{Task, folder, sample};
use experiments::run::{Outcome, RunError, run};
use experiments::settings::{Args, Settings, read};
use experiments::table::table;
use wegeft::storage::write_then_rename;

fn main() {
    if let Err(message) = vtab(&Args::parse()) {
        eprintln!("vtab: {message}");
        std::process::exit(1);
    }
}

fn vtab(args: &Args) -> Result<(), String> {
    let settings = args.settings()?;
    let device = experiments::device::device(&settings.device)?.autodiff();
    let mut outcomes = open(&args.out, &settings)?;
    let interrupter = Interrupter::new();
    stop_on_ctrl_c(&interrupter)?;
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/backbone");
    let (backbone, shape) = load_vit(
        settings.backbone.as_deref().unwrap_or(&shipped),
        settings.drop_path,
        &device,
    )
    .map_err(|e| e.to_string())?;
    let mut done = 0;
    for name in names(&settings)? {
        let left: Vec<&String> = settings
            .method
            .iter()
            .filter(|method| {
                !outcomes
                    .iter()
                    .any(|o: &Outcome| o.task == name && o.method == **method)
            })
            .collect();
        if left.is_empty() {
            continue;
        }
        let task = load(&settings, &name, shape.image_size)?;
        for method in left {
            let folder = args.out.join(&name).join(method);
            match run(&settings, &task, method, &backbone, &device, &folder, &interrupter) {
                Ok(outcome) => outcomes.push(outcome),
                Err(error @ RunError::Interrupted) => return Err(error.to_string()),
                Err(RunError::Failed(message)) => return Err(message),
            }
            let text = serde_json::to_string_pretty(&outcomes).map_err(|e| e.to_string())?;
            write_then_rename(&args.out.join("summary.json"), text.as_bytes()).map_err(|e| e.to_string())?;
            done += 1;
        }
    }
    if done == 0 {
        println!("{} is finished; choose another --out to run again", args.out.display());
    }
    println!("{}", table(&outcomes));
    Ok(())
}

/// Makes or reopens the run folder: what it already holds is kept if its settings are the same.
fn open(out: &Path, settings: &Settings) -> Result<Vec<Outcome>, String> {
    std::fs::create_dir_all(out).map_err(|e| format!("cannot make {}: {e}", out.display()))?;
    let config = out.join("config.toml");
    if config.exists() {
        if read(&config)? != *settings {
            return Err(format!(
                "{} was made with other settings; choose another --out or remove it",
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
        Err(_) => Ok(Vec::new()),
    }
}

fn names(settings: &Settings) -> Result<Vec<String>, String> {
    let known: Vec<String> = match &settings.data {
        Some(root) => folder::tasks(root).map_err(|e| e.to_string())?,
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
        return folder::task(root, name, size).map_err(|e| e.to_string());
    }
    if size != sample::SIZE {
        return Err(format!(
            "the sample's pictures are {} px, the backbone wants {size} px; give --data",
            sample::SIZE
        ));
    }
    sample::task(name).ok_or_else(|| format!("task '{name}' is unknown"))
}

/// The first Ctrl-C ends the step and keeps what is finished; the second one ends the program.
fn stop_on_ctrl_c(interrupter: &Interrupter) -> Result<(), String> {
    static PRESSED: AtomicBool = AtomicBool::new(false);
    let interrupter = interrupter.clone();
    ctrlc::set_handler(move || {
        if PRESSED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("stopping after this step; press Ctrl-C again to stop at once");
        interrupter.stop(Some("Ctrl-C"));
    })
    .map_err(|e| format!("cannot catch Ctrl-C: {e}"))
}
