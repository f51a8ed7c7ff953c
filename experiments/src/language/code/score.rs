//! Scores samples that were generated elsewhere, without a model: a lab that trains nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use datasets::language::CodeTask;
use files::File;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::judge::{Runner, further};
use crate::cli::output::tell;
use crate::cli::shipped::hex;
use crate::language::evaluation::{Answer, Score};
use crate::language::judge::Judged;
use crate::run::checksum::add_file;
use crate::run::files::keep_lines;
use crate::run::grid::{Best, Tuned};
use crate::run::outcome::{Outcome, RunError};
use crate::run::sealed_lines;
use crate::run::suite::{Lab, Program};
use crate::run::trial::{Plan, Rates, Trial};

/// Stands in for the name of a method when a file of samples is scored.
const SAMPLES: &str = "samples";

/// Samples of one benchmark.
pub struct Sampled {
    /// Name in tables.
    pub name: String,
    /// Its tasks.
    pub tasks: Vec<CodeTask>,
    /// The samples of each.
    pub samples: BTreeMap<String, Vec<String>>,
}

/// Scores files of samples.
pub struct ScoreLab {
    /// The program that the lab works for.
    pub program: Program,
    /// The file of samples and those of the tasks.
    pub files: Vec<PathBuf>,
    /// The samples.
    pub sets: Vec<Sampled>,
    /// Who runs them.
    pub runner: Runner,
    /// The k of pass@k.
    pub ks: Vec<usize>,
    plan: Plan,
}

impl ScoreLab {
    /// A lab for `sets`.
    pub fn new(program: Program, files: Vec<PathBuf>, sets: Vec<Sampled>, runner: Runner, ks: Vec<usize>) -> Self {
        let rates = Rates {
            method: SAMPLES.into(),
            fixed: (0.0, 0.0),
            grid: Vec::new(),
        };
        Self {
            program,
            files,
            sets,
            runner,
            ks,
            plan: Plan {
                tasks: vec![String::new()],
                methods: vec![rates],
                seeds: vec![0],
                sweep: false,
                best: Best::Lowest,
            },
        }
    }

    /// Scores the tasks of a set and writes each result as it arrives; tasks that are in the file already are not run
    /// again.
    fn score(&self, set: &Sampled, path: &Path) -> Result<Vec<Answer>, RunError> {
        let cannot_write = |e: std::io::Error| RunError::Failed(format!("cannot write {}: {e}", path.display()));
        let lines = sealed_lines::read::<Answer>(path).map_err(RunError::Failed)?;
        // Removes an incomplete last line before more lines are appended.
        keep_lines(path, &lines).map_err(RunError::Failed)?;
        let by_index = |line: (String, Answer)| (line.1.index, line);
        let mut done: BTreeMap<usize, (String, Answer)> = lines.into_iter().map(by_index).collect();
        let mut file = File::append(path).map_err(cannot_write)?;
        let fewest = set.samples.values().map(Vec::len).min().unwrap_or(0);
        let ks: Vec<usize> = self.ks.iter().copied().filter(|k| *k <= fewest).collect();
        let left = set
            .tasks
            .iter()
            .enumerate()
            .filter(|(index, _)| !done.contains_key(index));
        let left: Vec<(usize, &CodeTask)> = left.collect();
        for some in left.chunks(rayon::current_num_threads().max(1) * 4) {
            if self.program.interrupter.should_stop() {
                return Err(RunError::Interrupted);
            }
            let runner = &self.runner;
            let judged = some.par_iter().filter_map(|(index, task)| {
                let samples = set.samples.get(&task.id)?;
                Some(answer(runner, *index, task, samples, &ks))
            });
            for answer in judged
                .collect::<Result<Vec<Answer>, String>>()
                .map_err(RunError::Failed)?
            {
                let line = sealed_lines::line(&answer).map_err(RunError::Failed)?;
                file.write_line(&line).map_err(cannot_write)?;
                done.insert(answer.index, (line, answer));
            }
        }
        // They must be on disk before anything is derived from them.
        file.sync().map_err(cannot_write)?;
        let lines: Vec<(String, Answer)> = done.into_values().collect();
        keep_lines(path, &lines).map_err(RunError::Failed)?;
        Ok(lines.into_iter().map(|(_, answer)| answer).collect())
    }
}

/// A task and its samples, run.
fn answer(runner: &Runner, index: usize, task: &CodeTask, samples: &[String], ks: &[usize]) -> Result<Answer, String> {
    let judged = samples.par_iter().map(|sample| runner.judged(task, sample.clone()));
    let judged = judged.collect::<Result<Vec<Judged>, String>>()?;
    let passed = judged.iter().filter(|judged| judged.verdict.correct).count();
    let mut rest = judged.into_iter();
    let first = rest.next().ok_or("a task has no sample")?;
    Ok(Answer {
        index,
        prompt: task.prompt.clone(),
        output: samples[0].clone(),
        gold: task.solution.clone(),
        verdict: first.verdict,
        choice: None,
        score: (samples.len() > 1).then(|| passed as f64 / samples.len() as f64),
        others: samples[1..].to_vec(),
        details: first.details,
        other_verdicts: rest.collect(),
        measures: further(ks, samples.len(), passed),
        follow_up: None,
    })
}

impl Lab for ScoreLab {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn devices(&self, _jobs: Option<usize>) -> Vec<String> {
        vec![crate::cli::device::DEFAULT.into()]
    }

    fn program(&self) -> &Program {
        &self.program
    }

    fn paths(&self) -> &'static [&'static str] {
        &["data", "score"]
    }

    fn checksum(&self) -> Result<String, String> {
        let mut sum = Sha256::new();
        for file in &self.files {
            add_file(&mut sum, file)?;
        }
        Ok(hex(&sum.finalize()))
    }

    fn check(&mut self, _left: &[Trial], _out: &Path) -> Result<(), String> {
        Ok(())
    }

    fn estimate(&mut self, _trial: &Trial) -> Result<String, String> {
        let samples = self.sets.iter().flat_map(|set| set.samples.values());
        Ok(format!(
            "{} programs to run, nothing is trained",
            samples.map(Vec::len).sum::<usize>()
        ))
    }

    fn release(&mut self) {}

    fn tune(&mut self, _trial: &Trial, _folder: &Path) -> Result<Tuned, RunError> {
        Err(RunError::Failed(
            "samples of a file cannot be tuned; leave --sweep out".into(),
        ))
    }

    fn run(&mut self, trial: &Trial, folder: &Path) -> Result<Vec<Outcome>, RunError> {
        let mut outcomes = Vec::new();
        for set in &self.sets {
            let start = std::time::Instant::now();
            let score = Score::of(&self.score(set, &folder.join(format!("{}.jsonl", set.name)))?);
            let outcome = Outcome {
                experiment: self.program.experiment.into(),
                task: set.name.clone(),
                method: trial.method.clone(),
                metric: "pass@1".into(),
                value: Some(score.accuracy),
                questions: Some(score.count),
                seconds: start.elapsed().as_secs_f64(),
                ..Outcome::default()
            };
            for (name, value) in &score.further {
                outcomes.push(Outcome {
                    task: format!("{} {name}", set.name),
                    group: set.name.clone(),
                    metric: name.clone(),
                    value: Some(*value),
                    seconds: 0.0,
                    ..outcome.clone()
                });
            }
            tell(format_args!(
                "  {}: pass@1 {:.1} % of {} tasks",
                set.name, score.accuracy, score.count
            ));
            outcomes.insert(outcomes.len() - score.further.len(), outcome);
        }
        Ok(outcomes)
    }

    fn describe(&self, trial: &Trial, outcomes: &[Outcome]) -> String {
        let parts = outcomes
            .iter()
            .map(|outcome| format!("{} {:.1}", outcome.task, outcome.value.unwrap_or(0.0)));
        format!("{}: {}", trial.label(), parts.collect::<Vec<_>>().join(", "))
    }
}
