//! The `vtab` experiment: the tasks of a data folder, or the sample's.

use std::path::{Path, PathBuf};

use burn::train::Interrupter;
use datasets::{Task, root, sample};

use crate::flags::Args;
use crate::output::tell;
use crate::run::Outcome;
use crate::settings::Settings;
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
        check: &|name| match &settings.data {
            Some(root) => {
                let task = root::task(root, name, sample::SIZE, settings.resize.unwrap_or_default());
                task.and_then(|task| task.check()).map_err(|e| e.to_string())
            }
            None => Ok(()),
        },
        load: &|name, size| load(&settings, name, size, &|| !interrupter.should_stop()),
    };
    run_suite(&suite, args, &settings, interrupter)
}

fn names(settings: &Settings) -> Result<Vec<String>, String> {
    let known: Vec<String> = match &settings.data {
        Some(root) => root::tasks(root).map_err(|e| e.to_string())?,
        None => sample::NAMES.iter().map(|name| name.to_string()).collect(),
    };
    let unknown = |task: &&String| *task != "all" && !known.contains(task);
    if let Some(task) = settings.task.iter().find(unknown) {
        return Err(format!("task '{task}' is unknown; there are: {}", known.join(", ")));
    }
    match settings.task.iter().any(|task| task == "all") {
        true => Ok(known),
        false => Ok(settings.task.clone()),
    }
}

/// Reads a task, its pictures `size` pixels wide, as long as `go_on` says so.
///
/// # Errors
/// An unknown task, data that cannot be read, a size that the sample does not have.
pub fn load(settings: &Settings, name: &str, size: usize, go_on: &dyn Fn() -> bool) -> Result<Task, String> {
    if let Some(root) = &settings.data {
        let resize = settings.resize.unwrap_or_default();
        let task = root::task(root, name, size, resize).map_err(|e| e.to_string())?;
        match task.trained_and_tested() {
            0 => {}
            count => tell(format_args!(
                "{name}: {count} of the test pictures are trained on as well; the score tells little"
            )),
        }
        let task = task.keep(go_on).map_err(|e| e.to_string())?;
        for note in &task.notes {
            tell(format_args!("{name}: {note}"));
        }
        return Ok(task);
    }
    if size != sample::SIZE {
        return Err(format!(
            "the sample's pictures are {} px, the backbone wants {size} px; give --data, or --image-size {0}",
            sample::SIZE
        ));
    }
    sample::task(name).ok_or_else(|| format!("task '{name}' is unknown"))
}
