//! The verdict on a program, by the task's own tests.

use std::sync::Arc;

use datasets::language::CodeTask;
use datasets::language::question::Verdict;
use serde_json::json;

use super::expression::evaluate;
use super::form::Form;
use super::pass_at::pass_at;
use crate::language::judge::{Asked, Judge, Judged, Measure};
use crate::sandbox::{Ended, Python};

/// Who runs programs.
#[derive(Debug, Clone)]
pub enum Runner {
    /// Python, in the sandbox.
    Python(Arc<Python>),
    /// No interpreter: the expressions of generated tasks are evaluated here.
    Expressions,
}

impl Runner {
    /// Runs `completion` of `task`.
    ///
    /// # Errors
    /// A sandbox that cannot be set up.
    pub fn run(&self, task: &CodeTask, completion: &str) -> Result<Ended, String> {
        match self {
            Self::Python(python) => python.run(&task.program(completion)),
            Self::Expressions => Ok(by_cases(task, completion)),
        }
    }

    /// The verdict on `completion` of `task`.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn judged(&self, task: &CodeTask, completion: String) -> Result<Judged, String> {
        let ended = self.run(task, &completion)?;
        Ok(Judged {
            verdict: Verdict {
                extracted: Some(completion),
                correct: ended.passed,
            },
            details: json!({ "task_id": task.id, "result": ended.result }),
        })
    }
}

fn by_cases(task: &CodeTask, completion: &str) -> Ended {
    let wrong = task
        .cases
        .iter()
        .find_map(|(arguments, expected)| match evaluate(completion, arguments) {
            Ok(value) if value == *expected => None,
            Ok(value) => Some(format!("f({}) is {value}, expected {expected}", arguments[0])),
            Err(message) => Some(message),
        });
    Ended {
        passed: wrong.is_none(),
        result: wrong.map_or("passed".into(), |why| format!("failed: {why}")),
    }
}

/// Judges the programs of one task.
struct Tests {
    task: CodeTask,
    form: Form,
    stop: Vec<String>,
    runner: Runner,
    ks: Vec<usize>,
}

impl Judge for Tests {
    fn gold(&self) -> String {
        self.task.solution.clone()
    }

    fn judge(&self, prompt: &str, output: &str) -> Verdict {
        let failed = |_| Verdict {
            extracted: None,
            correct: false,
        };
        self.judged(prompt, output).map_or_else(failed, |judged| judged.verdict)
    }

    fn judged(&self, _prompt: &str, output: &str) -> Result<Judged, String> {
        self.runner
            .judged(&self.task, self.form.program(output, self.task.benchmark))
    }

    fn measures(&self, samples: &[Judged]) -> Vec<Measure> {
        further(
            &self.ks,
            samples.len(),
            samples.iter().filter(|sample| sample.verdict.correct).count(),
        )
    }

    fn stop(&self) -> &[String] {
        &self.stop
    }
}

/// pass@k of a task for each k above 1 in `ks` for which there are enough samples.
pub fn further(ks: &[usize], samples: usize, passed: usize) -> Vec<Measure> {
    let of = |k: &usize| {
        Some(Measure {
            name: format!("pass@{k}"),
            value: pass_at(samples, passed, *k)?,
            weight: 1.0,
        })
    };
    ks.iter().filter(|k| **k > 1).filter_map(of).collect()
}

/// The task as a model reads it.
pub fn asked(task: CodeTask, form: &Form, runner: &Runner, ks: &[usize]) -> Asked {
    Asked {
        prompt: form.prompt(&task),
        options: None,
        judge: Arc::new(Tests {
            stop: form.stop(task.benchmark),
            form: form.clone(),
            runner: runner.clone(),
            ks: ks.to_vec(),
            task,
        }),
    }
}

#[cfg(test)]
mod tests {
    use datasets::language::sample::programs::programs;

    use super::*;

    #[test]
    fn the_generated_solutions_pass_and_others_fail() {
        for (name, tasks) in programs().sets {
            for task in tasks {
                let form = Form::Completion { shots: Vec::new() };
                let asked = asked(task.clone(), &form, &Runner::Expressions, &[1, 2]);
                assert!(
                    asked.judge.judge(&asked.prompt, &task.solution).correct,
                    "{name}: {}",
                    task.solution
                );
                let wrong = asked
                    .judge
                    .judged(&asked.prompt, &format!("{} + 1", task.solution))
                    .unwrap();
                assert!(!wrong.verdict.correct);
                assert!(
                    wrong.details["result"]
                        .as_str()
                        .unwrap()
                        .starts_with("failed: f(40) is ")
                );
                let right = asked.judge.judged(&asked.prompt, &task.solution).unwrap();
                let measures = asked.judge.measures(&[right, wrong]);
                assert_eq!(
                    (measures[0].name.as_str(), measures[0].value, measures.len()),
                    ("pass@2", 1.0, 1)
                );
            }
        }
    }
}
