//! The `fgvc` experiment: five data sets of fine-grained classes, trained as in the paper's released code.

use burn::train::Interrupter;
use datasets::{Resize, Task, fgvc as data};

use crate::flags::Args;
use crate::output::tell;
use crate::run::Outcome;
use crate::settings::Settings;
use crate::suite::{Suite, run_suite};

/// Runs what `args` ask for and returns the outcomes of the whole run folder; `interrupter` stops it.
///
/// # Errors
/// One sentence: bad settings, data or weights, a run that failed, an interruption.
pub fn fgvc(args: &Args, interrupter: &Interrupter) -> Result<Vec<Outcome>, String> {
    let settings = args.settings()?;
    let suite = Suite {
        experiment: "fgvc",
        tasks: names(&settings)?,
        check: &|name| unread(&settings, name, 224)?.check().map_err(|e| e.to_string()),
        load: &|name, size| load(&settings, name, size, &|| !interrupter.should_stop()),
    };
    run_suite(&suite, args, &settings, interrupter)
}

fn names(settings: &Settings) -> Result<Vec<String>, String> {
    let root = settings
        .data
        .as_ref()
        .ok_or("give --data ROOT, a folder with CUB_200_2011, nabirds and so on in it")?;
    for name in settings.task.iter().filter(|name| *name != "all") {
        data::info(name).map_err(|e| e.to_string())?;
    }
    if settings.task.iter().any(|task| task == "all") {
        return data::tasks(root).map_err(|e| e.to_string());
    }
    Ok(settings.task.clone())
}

/// Reads a task, its pictures `size` pixels wide, as long as `go_on` says so; says so where its splits are not of the paper's sizes.
///
/// # Errors
/// Data that is missing or malformed.
pub fn load(settings: &Settings, name: &str, size: usize, go_on: &dyn Fn() -> bool) -> Result<Task, String> {
    let task = unread(settings, name, size)?;
    let expected = data::info(name).map_err(|e| e.to_string())?.sizes;
    let found = [task.train.len(), task.valid.len(), task.test.len()];
    if found != expected {
        tell(format_args!(
            "{name}: {found:?} pictures to train, validate and test on; the paper has {expected:?}"
        ));
    }
    let task = task.keep(go_on).map_err(|e| e.to_string())?;
    for note in &task.notes {
        tell(format_args!("{name}: {note}"));
    }
    Ok(task)
}

/// A task, its pictures not yet read.
fn unread(settings: &Settings, name: &str, size: usize) -> Result<Task, String> {
    let root = settings.data.as_deref().ok_or("give --data ROOT")?;
    let resize = settings.resize.unwrap_or(Resize::Crop);
    data::task(root, name, size, resize, settings.class_ids).map_err(|e| e.to_string())
}
