//! `fgvc`: five fine-grained datasets, trained as in the paper's released code.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Command};
use datasets::fgvc::ClassIds;
use datasets::{Resize, Task, fgvc as data};
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
pub struct Fgvc;

const MORE: &str = "\
Tasks: cub (CUB-200-2011), nabirds, flowers (Oxford Flowers), dogs (Stanford Dogs), cars (Stanford Cars). --data is \
the folder that contains their unpacked archives, or VPT's or TOAST's train.json, val.json and test.json next to the \
images. The run folder, the keys and the exit codes are those of vtab.";

#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
struct Settings {
    #[command(flatten)]
    #[serde(flatten)]
    common: Common,
    /// How class ids become labels: joint maps the ids of all splits together; per-split maps those of each split
    /// separately, as the paper's released code does, which shifts labels if a split lacks a class.
    #[arg(long, help_heading = "Data", default_value = "joint",
        value_parser = PossibleValuesParser::new(["joint", "per-split"]).try_map(|name| name.parse::<ClassIds>()))]
    class_ids: ClassIds,
}

impl Experiment for Fgvc {
    fn text(&self) -> Text {
        Text {
            name: "fgvc",
            about: "Fine-tune a vision transformer on five fine-grained datasets and print the table of results",
            more: MORE,
            examples: "fgvc --data ROOT --task cub --model timm/vit_base_patch16_224.augreg_in21k --method wegeft
                fgvc --config paper-fgvc --data ROOT --method wegeft --out runs/paper-fgvc-wegeft",
            defaults: "",
            presets: &[Preset {
                name: "paper-fgvc",
                text: include_str!("../../configs/paper-fgvc.toml"),
            }],
        }
    }

    fn wing(&self) -> Wing {
        Wing::Vision
    }

    fn flags(&self, command: Command) -> Command {
        Settings::augment_args(command)
            .mut_arg("data", |arg| {
                arg.help(
                    "Folder with the datasets' unpacked archives, or with VPT's or TOAST's lists next to the images",
                )
            })
            .mut_arg("task", |arg| {
                arg.help("Tasks, separated by commas: cub, nabirds, flowers, dogs, cars; or `all` in --data")
            })
    }

    fn task_names(&self) -> Vec<&'static str> {
        data::DATASETS.iter().map(|info| info.name).collect()
    }

    fn open(&self, given: &Given) -> Result<Opened, String> {
        let (settings, program) = given.settings::<Settings>(&[], |settings| settings.common.check())?;
        let names = names(&settings.common.data)?;
        let tasks = Box::new(Source {
            data: settings.common.data.clone(),
            class_ids: settings.class_ids,
        });
        Ok(Opened {
            lab: Box::new(VisionLab::new(program, settings.common, names, tasks)),
            layout: Layout::Tasks,
        })
    }

    fn published(&self, found: &[String]) -> Option<Frame> {
        benchmarks::fgvc(found)
    }
}

fn names(settings: &Data) -> Result<Vec<String>, String> {
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

struct Source {
    data: Data,
    class_ids: ClassIds,
}

impl Source {
    fn of_size(&self, name: &str, size: usize) -> Result<Task, String> {
        let root = self.data.data.as_deref().ok_or("give --data ROOT")?;
        let resize = self.data.resize.unwrap_or(Resize::Crop);
        let task = data::task(root, name, size, resize, self.class_ids).map_err(|e| e.to_string())?;
        Ok(match self.data.max_image_pixels {
            Some(most) => task.with_max_pixels(most),
            None => task,
        })
    }
}

impl Tasks for Source {
    fn unread(&self, name: &str) -> Result<Option<Task>, String> {
        self.of_size(name, 224).map(Some)
    }

    /// Prints a note if the sizes of the splits differ from the paper's.
    fn load(&self, name: &str, size: usize, go_on: &dyn Fn() -> bool) -> Result<Task, String> {
        let task = self.of_size(name, size)?;
        let expected = data::info(name).map_err(|e| e.to_string())?.sizes;
        let found = [task.train.len(), task.valid.len(), task.test.len()];
        if found != expected {
            tell(format_args!(
                "{name}: {found:?} images to train, validate and test on; the paper has {expected:?}"
            ));
        }
        let task = task.keep(go_on).map_err(|e| e.to_string())?;
        for note in &task.notes {
            tell(format_args!("{name}: {note}"));
        }
        Ok(task)
    }
}
