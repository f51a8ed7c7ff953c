//! Makes the task folders that `vtab` reads from the files of TensorFlow Datasets.

use std::path::PathBuf;

use clap::Parser;
use datasets::vtab::prepare::{clean, is_there, prepare as prepare_task};
use datasets::vtab::{Options, TASKS, TaskInfo, info};

use crate::cli::output::{print, tell};
use crate::cli::table::table;
use crate::run::files::create_folder;
use crate::run::lock::Lock;

/// Make the task folders of VTAB-1k from the records of TensorFlow Datasets
///
/// Each task folder has images/, train800.txt, val200.txt, train800val200.txt, test.txt and classes.txt: the 1,000
/// images and the test set of VTAB-1k, in TFDS's order, labelled by VTAB's rules. dSprites can also be read from its
/// authors' .npz file. Images are copied as they are stored.
///
/// Prints the number of images and a checksum for each list, and writes them into the task's prepared.json. A finished
/// task is left unchanged, so running the same command again continues where it was stopped.
#[derive(Debug, Parser)]
#[command(name = "prepare")]
pub struct Args {
    /// Folder of TensorFlow Datasets (holds cifar100/3.0.2/dataset_info.json and so on).
    #[arg(long)]
    tfds: PathBuf,
    /// Folder to write the task folders to; give it to `vtab` as --data.
    #[arg(long, alias = "output-dir")]
    out: PathBuf,
    /// Tasks, separated by commas; `all` means all tasks whose data is present.
    #[arg(long, alias = "sets", value_delimiter = ',', default_value = "all")]
    task: Vec<String>,
    /// Accept datasets whose versions or counts differ from the published ones.
    ///
    /// The images and results will differ, too.
    #[arg(long)]
    any_version: bool,
}

/// Runs the program.
///
/// # Errors
/// One sentence: data that is missing or of another version, a folder that cannot be written or is in use.
pub fn prepare(args: &Args) -> Result<(), String> {
    let options = Options {
        any_version: args.any_version,
    };
    let tasks = tasks(args)?;
    create_folder(&args.out)?;
    let _lock = Lock::take(&args.out)?;
    for name in clean(&args.out).map_err(|e| e.to_string())? {
        tell(format_args!("{name}: removed files that a killed run left behind"));
    }
    let mut rows = Vec::new();
    for task in tasks {
        let made =
            prepare_task(&args.tfds, &args.out, task, options).map_err(|e| format!("task {}: {e}", task.name))?;
        for list in made.lists {
            let short: String = list.sha256.chars().take(16).collect();
            let count = list.images.to_string();
            rows.push([task.name.to_string(), list.list, count, short, made.source.clone()]);
        }
    }
    let mut table = table(["task", "list", "images", "sha256", "made of"], rows, usize::MAX);
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    print(format_args!("{table}\n\nvtab --data {}", args.out.display()))
}

/// The requested tasks.
fn tasks(args: &Args) -> Result<Vec<&'static TaskInfo>, String> {
    if !args.task.iter().any(|name| name == "all") {
        return args
            .task
            .iter()
            .map(|name| {
                info(name).ok_or_else(|| {
                    let names: Vec<&str> = TASKS.iter().map(|task| task.name).collect();
                    format!("task '{name}' is unknown; there are: {}", names.join(", "))
                })
            })
            .collect();
    }
    let (there, missing): (Vec<_>, Vec<_>) = TASKS
        .iter()
        .partition(|task| is_there(&args.tfds, task) || args.out.join(task.name).is_dir());
    let names: Vec<&str> = missing.iter().map(|task| task.name).collect();
    if there.is_empty() {
        return Err(format!(
            "{} has no task's data; give the folder that TensorFlow Datasets calls data_dir, which contains cifar100/3.0.2 and so on",
            args.tfds.display()
        ));
    }
    if !missing.is_empty() {
        tell(format_args!("no data of: {}", names.join(", ")));
    }
    Ok(there)
}
