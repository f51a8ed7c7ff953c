//! `vtab`: the tasks of a data folder, or those of the sample.

use clap::{Args, Command};
use datasets::parquet_images::Columns;
use datasets::{Task, root, sample, vtab};
use serde::{Deserialize, Serialize};

use crate::cli::output::tell;
use crate::methods::Wing;
use crate::report::benchmarks;
use crate::report::layout::Layout;
use crate::report::table::Frame;
use crate::suites::experiment::{Experiment, Given, Opened, Preset, Text};
use crate::vision::lab::VisionLab;
use crate::vision::settings::{Data, Settings as Common};
use crate::vision::tasks::Tasks;

/// The experiment.
pub struct Vtab;

const MORE: &str = "\
A task in --data is a folder with train800.txt, val200.txt and test.txt. Each line describes one image: its path \
relative to that folder, a space, and its label (a number from 0). The number of classes follows from the labels in \
train800.txt, unless classes.txt names the classes, one per line. If the first two lists are missing, \
train800val200.txt is read instead; --final-run joins them. Without --data, the sample tasks that ship with the \
program are run.

The run folder contains config.toml (the effective settings), summary.json, report.html and, for each task and method, \
metrics.jsonl, samples.json, checkpoints/ and adapter/ (Hugging Face PEFT's layout, and classifier.json with the \
classes and the backbone for `predict`). Running the same command again continues from the last checkpoint of an \
unfinished training, or with the trainings that are missing.

In a terminal, the arrow keys choose what is plotted; q then s stops after the current step, q then k stops at once. \
Ctrl-C stops after the current step, a second Ctrl-C at once; finished results are kept. Exit codes: 0 success; 1 \
failed or interrupted, with one sentence that gives the reason; 2 wrong flags; 130 stopped by a second Ctrl-C.";

#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
struct Settings {
    #[command(flatten)]
    #[serde(flatten)]
    common: Common,
    /// Column of images in parquet files, or of their names in metadata [default: as declared in the file, or the usual
    /// names].
    #[arg(long, help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    image_field: Option<String>,
    /// Column of labels in parquet files or metadata [default: as declared in the file, or the usual names].
    #[arg(long, help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    label_field: Option<String>,
}

impl Experiment for Vtab {
    fn text(&self) -> Text {
        Text {
            name: "vtab",
            about: "Fine-tune a vision transformer on VTAB-style tasks and print the table of results",
            more: MORE,
            examples: "vtab
                vtab --data ROOT --task a,b --model facebook/dinov2-small --image-size 224 --method lora,wegeft
                vtab --config paper-vtab --data ROOT --method wegeft --out runs/paper-wegeft --jobs 2",
            defaults: "",
            presets: &[
                Preset {
                    name: "quick",
                    text: include_str!("../../configs/quick.toml"),
                },
                Preset {
                    name: "paper-vtab",
                    text: include_str!("../../configs/paper-vtab.toml"),
                },
            ],
        }
    }

    fn wing(&self) -> Wing {
        Wing::Vision
    }

    fn flags(&self, command: Command) -> Command {
        Settings::augment_args(command)
    }

    fn task_names(&self) -> Vec<&'static str> {
        sample::NAMES.to_vec()
    }

    fn open(&self, given: &Given) -> Result<Opened, String> {
        let (settings, program) = given.settings::<Settings>(&[], |settings| settings.common.check())?;
        let data = settings.common.data.clone();
        let names = names(&data, given.data_before().as_deref())?;
        let columns = Columns {
            image: settings.image_field,
            label: settings.label_field,
        };
        if data.data.is_none() && columns != Columns::default() {
            return Err("--image-field and --label-field name columns of the data under --data; give it too".into());
        }
        let tasks = Box::new(Source { data, columns });
        Ok(Opened {
            lab: Box::new(VisionLab::new(program, settings.common, names, tasks)),
            layout: Layout::Tasks,
        })
    }

    fn published(&self, found: &[String]) -> Option<Frame> {
        benchmarks::vtab(found)
    }
}

/// The names of the chosen tasks. A folder that is one task by itself is named after itself or, in the run folder of an
/// earlier start, after `before`, as it was called then.
fn names(data: &Data, before: Option<&str>) -> Result<Vec<String>, String> {
    let known: Vec<String> = match &data.data {
        Some(root) => match before {
            Some(before) if root::is_one_task(root) => vec![before.to_string()],
            _ => root::tasks(root).map_err(|e| e.to_string())?,
        },
        None => sample::NAMES.iter().map(|name| name.to_string()).collect(),
    };
    let unknown = |task: &&String| *task != "all" && !known.contains(task);
    if let Some(task) = data.task.iter().find(unknown) {
        return Err(format!("task '{task}' is unknown; there are: {}", known.join(", ")));
    }
    match data.task.iter().any(|task| task == "all") {
        true => Ok(known),
        false => Ok(data.task.clone()),
    }
}

/// The tasks of a folder, or of the sample.
pub struct Source {
    /// Location and settings of the data.
    pub data: Data,
    /// Names of the columns of parquet files.
    pub columns: Columns,
}

impl Source {
    fn of_folder(&self, name: &str, size: usize) -> Result<Option<Task>, String> {
        let Some(root) = &self.data.data else { return Ok(None) };
        let resize = self.data.resize.unwrap_or_default();
        let task = root::task_with(root, name, size, resize, &self.columns).map_err(|e| e.to_string())?;
        Ok(Some(match self.data.max_image_pixels {
            Some(most) => task.with_max_pixels(most),
            None => task,
        }))
    }
}

impl Tasks for Source {
    fn unread(&self, name: &str) -> Result<Option<Task>, String> {
        self.of_folder(name, sample::SIZE)
    }

    fn verify(&self, name: &str) -> Result<(), String> {
        match &self.data.data {
            Some(root) => vtab::verify(&root.join(name)).map_err(|e| e.to_string()),
            None => Ok(()),
        }
    }

    fn load(&self, name: &str, size: usize, go_on: &dyn Fn() -> bool) -> Result<Task, String> {
        if let Some(task) = self.of_folder(name, size)? {
            match task.trained_and_tested() {
                0 => {}
                count => tell(format_args!(
                    "{name}: {count} of the test images are training images too; the score says little"
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
                "the sample's images are {} px, the backbone wants {size} px; give --data, or --image-size {0}",
                sample::SIZE
            ));
        }
        sample::task(name).ok_or_else(|| format!("task '{name}' is unknown"))
    }
}
