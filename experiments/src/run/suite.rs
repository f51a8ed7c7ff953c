//! The suite loop: runs every task with every method and seed into one run folder, in this process or in several.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::cli::interrupt::Interrupter;
use crate::cli::output::{note, one_line, print, tell};
use crate::cli::remote::release;
use crate::cli::settings::Layer;
use crate::run::files::{create_folder, write_json};
use crate::run::folder::{Claim, refuse_links};
use crate::run::grid::{Tuned, round_name};
use crate::run::jobs::{DIVERGED, Jobs, stop_with_the_starter};
use crate::run::lock::Lock;
use crate::run::outcome::{Outcome, RunError};
use crate::run::place::{SUMMARY, refuse_another_adapter, refuse_for_a_run};
use crate::run::strays::remove_strays;
use crate::run::trial::{Finals, Plan, Stage, Trial};

/// Trains, tests and judges the trials of a run: the seam between the loop and the models.
pub trait Lab {
    /// The plan of all trials.
    fn plan(&self) -> &Plan;

    /// The program that it works for.
    fn program(&self) -> &Program;

    /// The devices of each process, of `jobs` of them if that is given; at least one.
    fn devices(&self, jobs: Option<usize>) -> Vec<String>;

    /// Settings with the paths of data and models.
    fn paths(&self) -> &'static [&'static str];

    /// Checksum of data and models, without their paths.
    ///
    /// # Errors
    /// A file that cannot be read.
    fn checksum(&self) -> Result<String, String>;

    /// True if the checksum takes little time beside the start of the program.
    fn checks_quickly(&self) -> bool {
        false
    }

    /// Checks, before the first training, for problems that would stop a later one: bad data, adapters that do not fit.
    /// `out`: the run folder, which may have results of the trials that are `left`.
    ///
    /// # Errors
    /// One sentence.
    fn check(&mut self, left: &[Trial], out: &Path) -> Result<(), String>;

    /// Describes what a trial will train, and the memory and time that it will need.
    ///
    /// # Errors
    /// An impossible adapter, data that cannot be read.
    fn estimate(&mut self, trial: &Trial) -> Result<String, String>;

    /// True if the files of a finished trial in `folder` are complete.
    fn is_whole(&self, _trial: &Trial, _folder: &Path) -> bool {
        true
    }

    /// Outcomes of a trial that is not finished.
    fn partial(&self, _trial: &Trial, _folder: &Path) -> Vec<Outcome> {
        Vec::new()
    }

    /// True if one process should run both trials, one after the other.
    fn shares(&self, _a: &Trial, _b: &Trial) -> bool {
        false
    }

    /// Frees models and data, because the child processes load their own.
    fn release(&mut self);

    /// Trains one point of a grid and judges it.
    ///
    /// # Errors
    /// As [`Lab::run`]; a loss that is not a number is a result.
    fn tune(&mut self, trial: &Trial, folder: &Path) -> Result<Tuned, RunError>;

    /// Trains and tests a trial. A partly finished folder is resumed, with the same results as an uninterrupted run.
    ///
    /// # Errors
    /// A loss that is not a number, an interruption, anything else in one sentence.
    fn run(&mut self, trial: &Trial, folder: &Path) -> Result<Vec<Outcome>, RunError>;

    /// Settings that nothing in the data reads, each with the reason.
    fn unread(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }

    /// Describes a finished trial in one line.
    fn describe(&self, trial: &Trial, outcomes: &[Outcome]) -> String;
}

/// Makes the report of some outcomes, if there is something new (the second argument), and returns the table.
pub type Report<'a> = &'a dyn Fn(&[Outcome], bool) -> Result<String, String>;

/// Reads the settings of a config.toml, with old names replaced by the current ones.
pub type Reader = Box<dyn Fn(&Layer) -> Result<toml::Table, String>>;

/// The program that a lab works for.
pub struct Program {
    /// Its name.
    pub experiment: &'static str,
    /// The effective settings, as in config.toml.
    pub table: toml::Table,
    /// Reads a config.toml.
    pub reader: Reader,
    /// Stops the run.
    pub interrupter: Interrupter,
    /// Steps between lines of progress.
    pub log_steps: usize,
}

/// Where and how the trials run.
pub struct Run<'a> {
    /// Run folder.
    pub out: &'a Path,
    /// Whether the settings are those in the folder.
    pub resume: bool,
    /// Processes; one per device, or team of devices, if absent.
    pub jobs: Option<usize>,
    /// The trials of this process, if `--jobs` started it.
    pub trial: &'a [PathBuf],
    /// Only check and estimate.
    pub dry_run: bool,
    /// Steps between lines of progress.
    pub log_steps: usize,
    /// Stops the run.
    pub interrupter: &'a Interrupter,
    /// Writes the report if there is something new (the second argument) and returns the table.
    pub report: Report<'a>,
    /// Folders of finished trials whose files are whole: they are looked at once.
    pub whole: RefCell<BTreeSet<PathBuf>>,
}

impl Run<'_> {
    /// Runs all trials of `lab` that are not finished and returns the outcomes of the whole run folder.
    ///
    /// # Errors
    /// One sentence: bad settings, data or weights, a trial that failed, an interruption.
    pub fn run(&self, lab: &mut dyn Lab) -> Result<Vec<Outcome>, String> {
        if !self.trial.is_empty() {
            return self.worker(lab);
        }
        let devices = lab.devices(self.jobs);
        for names in &devices {
            crate::cli::device::devices(names)?;
        }
        let jobs = self.jobs.unwrap_or(devices.len());
        if jobs == 0 {
            return Err("--jobs must be at least 1".into());
        }
        let tasks = lab.plan().tasks.clone();
        if self.dry_run {
            if self.out.exists() {
                refuse_links(self.out)?;
                let settings = lab.program().table.clone();
                let claim = self.claim(lab, &settings);
                refuse_for_a_run(self.out, claim.with(|claim| claim.is_own())?)?;
                claim.check(true, || lab.checksum())?;
            }
            return self
                .estimates(lab, &tasks)
                .map_err(|message| match self.interrupter.should_stop() {
                    true => "interrupted; --dry-run keeps nothing".into(),
                    false => message,
                });
        }
        let out = self.out;
        create_folder(out).map_err(|e| format!("{e}; choose another --out"))?;
        refuse_links(out)?;
        let settings = lab.program().table.clone();
        let is_own = self.claim(lab, &settings).with(|claim| claim.is_own())?;
        refuse_for_a_run(out, is_own)?;
        let lock = Lock::take(out)?;
        // In a folder that no run was in, they may be those of any program.
        if is_own || lock.was_there() {
            remove_strays(out);
        }
        // If summary.json was removed, its results are made again: trained adapters are kept and tested again.
        let again = !out.join(SUMMARY).is_file();
        let before = match again {
            true => Vec::new(),
            false => self.outcomes(lab, &tasks)?,
        };
        let mut left = Vec::new();
        for stage in [Stage::Tune, Stage::Final] {
            left.extend(self.left(lab, &tasks, stage, again)?.trials);
        }
        for trial in left
            .iter()
            .filter(|trial| trial.stage == Stage::Final && !again && trial.is_done(out))
        {
            note(format_args!(
                "{}: a file of it is missing or damaged, so it is made again",
                trial.place()
            ));
        }
        let expected = tasks.len() * lab.plan().methods.len() * lab.plan().seeds.len();
        let unfinished = !left.is_empty() || before.is_empty() && expected > 0;
        {
            let claim = self.claim(lab, &settings);
            // Files of a finished run are compared too if that is quick, and they are all there.
            let quick = lab.checks_quickly() && claim.with(|claim| claim.gone().is_none());
            claim.check(unfinished || quick, || lab.checksum())?;
        }
        left.iter()
            .try_for_each(|trial| refuse_another_adapter(&out.join(trial.folder())))?;
        if unfinished {
            lab.check(&left, self.out)?;
        }
        if jobs > 1 {
            lab.release();
            release();
        }
        self.claim(lab, &settings).save(|| lab.checksum())?;
        let ran = self.trials(lab, &tasks, again, (jobs, &devices));
        if let Err(removed) = lock.check(out) {
            return ran.and(Err(removed));
        }
        // Finished trials are reported, whatever stopped the others.
        let outcomes = self.outcomes(lab, &tasks)?;
        if !outcomes.is_empty() {
            write_json(&out.join(SUMMARY), &outcomes)?;
        }
        let new = outcomes != before;
        if !new && ran.is_ok() {
            tell(format_args!(
                "{} is finished; choose another --out to run again",
                out.display()
            ));
        }
        let shown = match outcomes.is_empty() {
            true => Ok(()),
            false => (self.report)(&outcomes, new).and_then(print),
        };
        ran.and(shown).map(|()| outcomes)
    }

    fn claim<'a>(&'a self, lab: &'a dyn Lab, settings: &'a toml::Table) -> ClaimOf<'a> {
        ClaimOf {
            lab,
            settings,
            out: self.out,
            resumed: self.resume,
        }
    }

    /// Prints what would be trained, and trains nothing.
    fn estimates(&self, lab: &mut dyn Lab, tasks: &[String]) -> Result<Vec<Outcome>, String> {
        let mut trials = Vec::new();
        for task in tasks {
            trials.extend(lab.plan().tuning(task));
        }
        let tuned = trials.len();
        for task in tasks {
            let plan = Plan {
                sweep: false,
                ..lab.plan().clone()
            };
            trials.extend(plan.finals(task, self.out)?.trials);
        }
        lab.check(&trials, self.out)?;
        if tuned > 0 {
            tell(format_args!(
                "{tuned} tuning runs come before the {} below; each takes as long as the training of its method or, with \
                 --tune-epochs, less",
                trials.len() - tuned
            ));
        }
        for trial in trials.iter().filter(|trial| trial.stage == Stage::Final) {
            print(format_args!("{}: {}", trial.label(), lab.estimate(trial)?))?;
        }
        Ok(Vec::new())
    }

    /// Runs the unfinished trials, in this process or in `jobs` processes. A training that diverges does not end the
    /// others.
    fn trials(
        &self,
        lab: &mut dyn Lab,
        tasks: &[String],
        again: bool,
        (jobs, devices): (usize, &[String]),
    ) -> Result<(), String> {
        // In one process, task by task, so that results come early; in several processes, all trials at once, so that
        // no core is idle.
        let batches: Vec<&[String]> = match jobs {
            1 => tasks.chunks(1).collect(),
            _ => vec![tasks],
        };
        let mut diverged: Vec<String> = Vec::new();
        for tasks in batches {
            for stage in [Stage::Tune, Stage::Final] {
                let Finals {
                    trials: left,
                    diverged: untuned,
                } = self.left(lab, tasks, stage, again)?;
                diverged.extend(untuned.into_iter().map(told));
                if jobs == 1 {
                    for trial in &left {
                        match self.one(lab, trial) {
                            Ok(()) => self.finished(lab, trial)?,
                            Err(RunError::Diverged(message)) => diverged.push(told(message)),
                            Err(error) => return Err(error.to_string()),
                        }
                    }
                } else {
                    let jobs = Jobs {
                        out: self.out,
                        count: jobs,
                        devices,
                        interrupter: self.interrupter,
                        log_steps: self.log_steps,
                    };
                    let units = units(lab, left);
                    let mut failure = None;
                    let messages = jobs.run(units, |unit| {
                        for trial in unit {
                            failure = self.finished(lab, trial).err().or(failure.take());
                        }
                    })?;
                    diverged.extend(messages.into_iter().map(told));
                    if let Some(message) = failure {
                        return Err(message);
                    }
                }
                if self.interrupter.should_stop() {
                    return Err(RunError::Interrupted.to_string());
                }
            }
        }
        match diverged.len() {
            0 => Ok(()),
            1 => Err(diverged.remove(0)),
            count => Err(format!("{} (and {} more)", diverged.remove(0), count - 1)),
        }
    }

    fn one(&self, lab: &mut dyn Lab, trial: &Trial) -> Result<(), RunError> {
        let folder = self.out.join(trial.folder());
        create_folder(&folder).map_err(RunError::Failed)?;
        // A child process of a killed run may still be using it.
        let _lock = Lock::wait(&folder).map_err(RunError::Failed)?;
        let saved = match trial.stage {
            Stage::Tune => trial.finish(self.out, &lab.tune(trial, &folder)?),
            Stage::Final => match <[Outcome; 1]>::try_from(lab.run(trial, &folder)?) {
                Ok([outcome]) => trial.finish(self.out, &outcome),
                Err(outcomes) => trial.finish(self.out, &outcomes),
            },
        };
        saved.map_err(RunError::Failed)
    }

    /// Runs as a process that `--jobs` started: only the named trials.
    fn worker(&self, lab: &mut dyn Lab) -> Result<Vec<Outcome>, String> {
        stop_with_the_starter(self.interrupter);
        let mut diverged = None;
        let tasks = lab.plan().tasks.clone();
        for task in &tasks {
            let plan = lab.plan().clone();
            for trial in plan.tuning(task).into_iter().chain(plan.finals(task, self.out)?.trials) {
                if !self.trial.contains(&trial.folder()) {
                    continue;
                }
                match self.one(lab, &trial) {
                    Err(RunError::Diverged(message)) => diverged = Some(message),
                    result => result.map_err(|e| e.to_string())?,
                }
            }
        }
        if let Some(message) = diverged {
            // The parent process continues with the other trials.
            note(one_line(&message));
            std::process::exit(DIVERGED);
        }
        Ok(Vec::new())
    }

    /// The outcomes of the final trials of all `tasks` that exist so far, in order.
    fn outcomes(&self, lab: &dyn Lab, tasks: &[String]) -> Result<Vec<Outcome>, String> {
        let mut found = Vec::new();
        for task in tasks {
            for trial in lab.plan().finals(task, self.out)?.trials {
                found.extend(match self.is_done(lab, &trial) {
                    true => trial.outcomes(self.out)?,
                    false => lab.partial(&trial, &self.out.join(trial.folder())),
                });
            }
        }
        Ok(found)
    }

    /// The unfinished trials of a stage; with `again`, final trials count as unfinished.
    fn left(&self, lab: &dyn Lab, tasks: &[String], stage: Stage, again: bool) -> Result<Finals, String> {
        let mut left = Finals::default();
        for task in tasks {
            match stage {
                Stage::Tune => left.trials.extend(lab.plan().tuning(task)),
                Stage::Final => {
                    let finals = lab.plan().finals(task, self.out)?;
                    left.trials.extend(finals.trials);
                    left.diverged.extend(finals.diverged);
                }
            }
        }
        left.trials
            .retain(|trial| !self.is_done(lab, trial) || (again && stage == Stage::Final));
        Ok(left)
    }

    fn is_done(&self, lab: &dyn Lab, trial: &Trial) -> bool {
        trial.is_done(self.out) && (trial.stage == Stage::Tune || self.is_whole(lab, trial))
    }

    fn is_whole(&self, lab: &dyn Lab, trial: &Trial) -> bool {
        let folder = trial.folder();
        if self.whole.borrow().contains(&folder) {
            return true;
        }
        let is_whole = lab.is_whole(trial, &self.out.join(&folder));
        if is_whole {
            self.whole.borrow_mut().insert(folder);
        }
        is_whole
    }

    /// Reports a finished trial and updates summary.json.
    fn finished(&self, lab: &dyn Lab, trial: &Trial) -> Result<(), String> {
        if trial.stage == Stage::Tune {
            if let Some(tuned) = trial.result::<Tuned>(self.out)? {
                let best = match tuned.epoch {
                    0 => "diverged".to_string(),
                    round => format!("best validation {:.4} in {} {round}", tuned.validation, unit(lab)),
                };
                tell(format_args!("  {}: {best}, {:.1} s", trial.label(), tuned.seconds));
            }
            return Ok(());
        }
        let outcomes = trial.outcomes(self.out)?;
        if outcomes.is_empty() {
            return Ok(()); // it diverged beside others of its process
        }
        tell(format_args!("  {}", lab.describe(trial, &outcomes)));
        write_json(&self.out.join(SUMMARY), &self.outcomes(lab, &lab.plan().tasks.clone())?)
    }
}

/// What the rounds of a training are.
fn unit(lab: &dyn Lab) -> &'static str {
    round_name(lab.program().table.contains_key("eval_steps"))
}

/// Prints a message immediately, because the next steps may take hours.
fn told(message: String) -> String {
    tell(format_args!("  {}", one_line(&message)));
    message
}

/// Groups trials into units for one process each: single trials, or trials that share data.
fn units(lab: &dyn Lab, trials: Vec<Trial>) -> Vec<Vec<Trial>> {
    let mut units: Vec<Vec<Trial>> = Vec::new();
    for trial in trials {
        let same = |first: &Trial| {
            first.task == trial.task
                && first.method == trial.method
                && first.stage == trial.stage
                && lab.shares(first, &trial)
        };
        match units.last_mut().filter(|unit| same(&unit[0])) {
            Some(unit) => unit.push(trial),
            None => units.push(vec![trial]),
        }
    }
    units
}

/// A lab's claim to its run folder.
struct ClaimOf<'a> {
    lab: &'a dyn Lab,
    settings: &'a toml::Table,
    out: &'a Path,
    resumed: bool,
}

impl ClaimOf<'_> {
    fn with<T>(&self, act: impl FnOnce(Claim) -> T) -> T {
        act(Claim {
            out: self.out,
            settings: self.settings,
            read: &|layer| (self.lab.program().reader)(layer),
            paths: self.lab.paths(),
            resumed: self.resumed,
        })
    }

    fn check(&self, left: bool, checksum: impl FnOnce() -> Result<String, String>) -> Result<(), String> {
        self.with(|claim| claim.check(left, checksum))
    }

    fn save(&self, checksum: impl FnOnce() -> Result<String, String>) -> Result<(), String> {
        self.with(|claim| claim.save(checksum))
    }
}
