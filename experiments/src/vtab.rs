//! The `vtab` experiment: the tasks of a data folder, or the sample's.

use std::path::{Path, PathBuf};

use burn::train::Interrupter;
use datasets::{Task, folder, sample};

use crate::run::Outcome;
use crate::settings::{Args, Settings};
use crate::suite::{Suite, run_suite};

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
    let suite = Suite {
        experiment: "vtab",
        tasks: names(&settings)?,
        load: &|name, size| load(&settings, name, size),
    };
    run_suite(&suite, args, &settings, interrupter)
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

/// Reads a task, its pictures `size` pixels wide.
///
/// # Errors
/// An unknown task, data that cannot be read, a size that the sample does not have.
pub fn load(settings: &Settings, name: &str, size: usize) -> Result<Task, String> {
    if let Some(root) = &settings.data {
        return folder::task(root, name, size).map_err(|e| e.to_string());
    }
    if size != sample::SIZE {
        return Err(format!(
            "the sample's pictures are {} px, the backbone wants {size} px; give --data, or --image-size {0}",
            sample::SIZE
        ));
    }
    sample::task(name).ok_or_else(|| format!("task '{name}' is unknown"))
}
