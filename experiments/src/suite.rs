//! A suite: every task with every method, into one run folder. What `vtab` and `fgvc` share.

use std::path::Path;

use backbones::{Pretrained, load_vit, resolve};
use burn::tensor::Device;
use burn::train::Interrupter;
use datasets::{Resize, Task};

use crate::flags::Args;
use crate::methods;
use crate::output::{print, tell};
use crate::prepared::Prepared;
use crate::report;
use crate::run::{Outcome, RunError, Setting, run, tune, write_json};
use crate::run_settings::{claim, refuse_another};
use crate::settings::Settings;
use crate::steps::steps;
use crate::sweep::jobs::{Jobs, stop_with_the_starter};
use crate::sweep::trial::{finals, outcomes, tuning};
use crate::sweep::{Stage, Trial};
use crate::table::table;
use crate::vtab::shipped_backbone;

/// The tasks of a program.
pub struct Suite<'a> {
    /// Name of the program.
    pub experiment: &'static str,
    /// The tasks to run.
    pub tasks: Vec<String>,
    /// Reads the lists of a task and looks whether its pictures are there.
    pub check: &'a dyn Fn(&str) -> Result<(), String>,
    /// Reads a task, its pictures of that side in pixels.
    pub load: &'a dyn Fn(&str, usize) -> Result<Task, String>,
}

/// Runs every task of `suite` with every method and returns the outcomes of the whole run folder; `interrupter` stops it.
///
/// # Errors
/// One sentence: bad settings, data or weights, a run that failed, an interruption.
pub fn run_suite(
    suite: &Suite,
    args: &Args,
    settings: &Settings,
    interrupter: &Interrupter,
) -> Result<Vec<Outcome>, String> {
    if !args.trial.is_empty() {
        return worker(suite, args, settings, interrupter);
    }
    let devices = settings.devices();
    for name in &devices {
        crate::device::device(name)?;
    }
    let jobs = args.jobs.unwrap_or(devices.len());
    if jobs == 0 {
        return Err("--jobs must be at least 1".into());
    }
    refuse_another(&args.out, settings, args.resume)?;
    let before = outcomes(settings, &suite.tasks, &args.out)?.len();
    let mut here = Here::new(suite, settings, interrupter);
    if before < suite.tasks.len() * settings.method.len() {
        here.check()?;
    }
    if jobs > 1 {
        here.backbone = None; // the processes have their own
    }
    claim(&args.out, settings)?;
    let ran = trials(&mut here, args, jobs, &devices);
    // What is finished is reported, whatever stopped the rest.
    let outcomes = outcomes(settings, &suite.tasks, &args.out)?;
    let new = outcomes.len() > before;
    if !new && ran.is_ok() {
        let out = args.out.display();
        tell(format_args!("{out} is finished; choose another --out to run again"));
    }
    let shown = show(&args.out, &outcomes, new);
    ran.and(shown).map(|()| outcomes)
}

/// Prints the table, and writes the report if there is something new in it.
fn show(out: &Path, outcomes: &[Outcome], new: bool) -> Result<(), String> {
    if outcomes.is_empty() {
        return Ok(());
    }
    let report = out.join("report.html");
    if new || !report.is_file() {
        report::write(out, outcomes)?;
    }
    print(format_args!("{}\n\nreport: {}", table(outcomes), report.display()))
}

/// Runs what is not finished, in this process or in `jobs` of them.
fn trials(here: &mut Here, args: &Args, jobs: usize, devices: &[String]) -> Result<(), String> {
    let Here {
        suite,
        settings,
        interrupter,
        ..
    } = *here;
    // In one process task by task, so that results come early; side by side all at once, so that no core waits.
    let batches: Vec<&[String]> = match jobs {
        1 => suite.tasks.chunks(1).collect(),
        _ => vec![&suite.tasks],
    };
    for tasks in batches {
        for stage in [Stage::Tune, Stage::Final] {
            let left = left(settings, tasks, stage, &args.out)?;
            if jobs == 1 {
                for trial in &left {
                    here.run(trial, &args.out)?;
                    finished(suite, settings, trial, &args.out)?;
                }
            } else {
                let jobs = Jobs {
                    out: &args.out,
                    count: jobs,
                    devices,
                    interrupter,
                };
                let mut failure = None;
                jobs.run(units(settings, left), |unit| {
                    for trial in unit {
                        failure = finished(suite, settings, trial, &args.out).err().or(failure.take());
                    }
                })?;
                if let Some(message) = failure {
                    return Err(message);
                }
            }
            if interrupter.should_stop() {
                return Err(RunError::Interrupted.to_string());
            }
        }
    }
    Ok(())
}

/// The part of a process that `--jobs` started: the named trials, nothing else.
fn worker(suite: &Suite, args: &Args, settings: &Settings, interrupter: &Interrupter) -> Result<Vec<Outcome>, String> {
    stop_with_the_starter(interrupter);
    let mut here = Here::new(suite, settings, interrupter);
    for stage in [Stage::Tune, Stage::Final] {
        for trial in left(settings, &suite.tasks, stage, &args.out)? {
            if args.trial.contains(&trial.folder()) {
                here.run(&trial, &args.out)?;
            }
        }
    }
    Ok(Vec::new())
}

/// The trials of a stage that are not finished.
fn left(settings: &Settings, tasks: &[String], stage: Stage, out: &Path) -> Result<Vec<Trial>, String> {
    let mut trials = Vec::new();
    for task in tasks {
        trials.extend(match stage {
            Stage::Tune => tuning(settings, task),
            Stage::Final => finals(settings, task, out)?,
        });
    }
    trials.retain(|trial| !trial.is_done(out));
    Ok(trials)
}

/// What one process does: a trial, but all linear probings of a task together, which share its features.
fn units(settings: &Settings, trials: Vec<Trial>) -> Vec<Vec<Trial>> {
    let mut units: Vec<Vec<Trial>> = Vec::new();
    for trial in trials {
        let shares = trial.method == "linear" && settings.drop_path == 0.0 && settings.augment().is_off();
        let last = units.last_mut().filter(|unit| {
            shares && unit[0].task == trial.task && unit[0].method == trial.method && unit[0].stage == trial.stage
        });
        match last {
            Some(unit) => unit.push(trial),
            None => units.push(vec![trial]),
        }
    }
    units
}

/// Tells of a finished trial and brings summary.json up to date.
fn finished(suite: &Suite, settings: &Settings, trial: &Trial, out: &Path) -> Result<(), String> {
    match trial.stage {
        Stage::Tune => {
            if let Some(tuned) = trial.result::<crate::sweep::grid::Tuned>(out)? {
                let best = match tuned.epoch {
                    0 => "diverged".to_string(),
                    epoch => format!("best val top-1 {:.1} in epoch {epoch}", tuned.validation),
                };
                tell(format_args!("  {}: {best}, {:.1} s", trial.label(), tuned.seconds));
            }
            Ok(())
        }
        Stage::Final => {
            if let Some(outcome) = trial.result::<Outcome>(out)? {
                tell(format_args!(
                    "  {}: test top-1 {:.1}, {:.1} s, {:.1} steps/s, peak memory {} MB",
                    trial.label(),
                    outcome.value,
                    outcome.seconds,
                    outcome.steps_per_second,
                    outcome.peak_mb.map_or("?".into(), |mb| format!("{mb:.0}"))
                ));
            }
            write_json(&out.join("summary.json"), &outcomes(settings, &suite.tasks, out)?)
        }
    }
}

/// Runs trials in this process. The backbone is loaded for the first one, a task kept until another one comes.
struct Here<'a> {
    suite: &'a Suite<'a>,
    settings: &'a Settings,
    interrupter: &'a Interrupter,
    backbone: Option<(Pretrained, Device)>,
    task: Option<Prepared>,
}

impl<'a> Here<'a> {
    fn new(suite: &'a Suite<'a>, settings: &'a Settings, interrupter: &'a Interrupter) -> Self {
        Self {
            suite,
            settings,
            interrupter,
            backbone: None,
            task: None,
        }
    }

    /// Finds, before the first training, what would stop a later one: lists, pictures, adapters that do not fit.
    fn check(&mut self) -> Result<(), String> {
        for task in &self.suite.tasks {
            (self.suite.check)(task)?;
        }
        let (backbone, device) = match self.backbone.take() {
            Some(known) => known,
            None => backbone(self.settings)?,
        };
        for method in &self.settings.method {
            let model = backbone.model.clone().with_head(2, &device);
            methods::adapter(self.settings, method)?
                .init(model)
                .map_err(|e| format!("method {method}: {e}"))?;
        }
        self.backbone = Some((backbone, device));
        Ok(())
    }

    fn run(&mut self, trial: &Trial, out: &Path) -> Result<(), String> {
        if self.backbone.is_none() {
            self.backbone = Some(backbone(self.settings)?);
        }
        let Some((backbone, device)) = &self.backbone else {
            return Ok(());
        };
        if self.task.as_ref().is_none_or(|task| task.name != trial.task) {
            self.task = None;
            let task = (self.suite.load)(&trial.task, backbone.config.image_size);
            if self.interrupter.should_stop() {
                return Err(RunError::Interrupted.to_string());
            }
            let mut task = task?;
            if self.settings.resize == Some(Resize::Model) {
                let steps = backbone
                    .preprocessing
                    .as_ref()
                    .map(steps)
                    .ok_or_else(Resize::no_steps)?;
                for part in [&mut task.train, &mut task.valid, &mut task.test] {
                    part.steps = Some(steps);
                }
            }
            let parts = [&task.train, &task.valid, &task.test];
            let count: usize = parts.iter().map(|part| part.len()).sum();
            let bytes: usize = parts.iter().map(|part| part.kept_bytes()).sum();
            let mb = bytes as f64 / 1e6;
            tell(format_args!(
                "{}: {count} pictures, {mb:.1} MB of them in memory",
                task.name
            ));
            self.task = Some(Prepared::new(task, backbone.normalization));
        }
        let Some(task) = &self.task else { return Ok(()) };
        let setting = Setting {
            experiment: self.suite.experiment,
            settings: self.settings,
            backbone,
            device,
            interrupter: self.interrupter,
        };
        let folder = out.join(trial.folder());
        match trial.stage {
            Stage::Tune => trial.finish(out, &tune(&setting, task, trial, &folder).map_err(|e| e.to_string())?),
            Stage::Final => trial.finish(out, &run(&setting, task, trial, &folder).map_err(|e| e.to_string())?),
        }
    }
}

/// The backbone and the device that it is on, with autodiff.
fn backbone(settings: &Settings) -> Result<(Pretrained, Device), String> {
    let device = crate::device::device(&settings.devices()[0])?.autodiff();
    let path = match &settings.backbone {
        Some(name) => resolve(name).map_err(|e| e.to_string())?,
        None => shipped_backbone(),
    };
    let backbone = load_vit(&path, settings.image_size, settings.drop_path, &device).map_err(|e| e.to_string())?;
    let [height, width] = backbone.config.image();
    if height != width {
        return Err(format!(
            "{} reads images of {height} x {width} px, and training images are squares; give --image-size",
            path.display()
        ));
    }
    Ok((backbone, device))
}
