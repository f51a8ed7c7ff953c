//! Answers to the questions of a test set, by generation and by likelihood, one JSON line each.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use backbones::lm::Decoder;
use burn::train::Interrupter;
use datasets::language::question::Verdict;
use datasets::language::{Protocol, Question};
use serde::{Deserialize, Serialize};
use wegeft::storage::write_then_rename;

use crate::language::answer::answers;
use crate::language::likelihood::{Choice, choose};
use crate::language::model::Lm;
use crate::language::settings::Settings;
use crate::run::RunError;

/// What a model made of a question: a line of the set's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Number of the question, from 0.
    pub index: usize,
    /// All that the model read.
    pub prompt: String,
    /// All that it wrote.
    pub output: String,
    /// The right answer.
    pub gold: String,
    /// What was extracted, and whether it is right.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The most likely option, where there are options.
    pub choice: Option<Choice>,
}

/// Percent right of some answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// By generation.
    pub accuracy: f64,
    /// By likelihood, if the questions have options.
    pub likelihood: Option<f64>,
    /// Answers.
    pub count: usize,
}

impl Score {
    /// The score of `answers`, which are not empty.
    pub fn of(answers: &[Answer]) -> Self {
        let percent = |right: usize, of: usize| 100.0 * right as f64 / of as f64;
        let choices: Vec<&Choice> = answers.iter().filter_map(|answer| answer.choice.as_ref()).collect();
        Self {
            accuracy: percent(
                answers.iter().filter(|answer| answer.verdict.correct).count(),
                answers.len(),
            ),
            likelihood: (!choices.is_empty())
                .then(|| percent(choices.iter().filter(|choice| choice.correct).count(), choices.len())),
            count: answers.len(),
        }
    }
}

/// Answers of `model` (bound, without autodiff) to `questions`, written to `path` as they come. A file that holds the
/// first answers already is gone on with.
///
/// # Errors
/// An interruption, or a file that is another set's or cannot be written.
pub fn evaluate(
    model: &Decoder,
    lm: &Lm,
    questions: &[Question],
    settings: &Settings,
    path: &Path,
    interrupter: &Interrupter,
) -> Result<Vec<Answer>, RunError> {
    let protocol = Protocol::named(&settings.protocol).map_err(RunError::Failed)?;
    let mut done = resume(path, questions).map_err(RunError::Failed)?;
    let cannot_write = |e: std::io::Error| RunError::Failed(format!("cannot write {}: {e}", path.display()));
    let mut file: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(cannot_write)?;
    while done.len() < questions.len() {
        if interrupter.should_stop() {
            return Err(RunError::Interrupted);
        }
        let from = done.len();
        let asked = &questions[from..questions.len().min(from + settings.eval_batch_size)];
        let prompts: Vec<String> = asked.iter().map(|q| q.template().prompt(&q.instruction, "")).collect();
        let outputs = answers(model, lm, &prompts, settings).map_err(RunError::Failed)?;
        for (offset, (question, (prompt, output))) in asked.iter().zip(prompts.into_iter().zip(outputs)).enumerate() {
            let choice = match settings.likelihood && !question.options.is_empty() {
                true => Some(choose(model, lm, question, &prompt).map_err(RunError::Failed)?),
                false => None,
            };
            let answer = Answer {
                index: from + offset,
                gold: question.gold_text(),
                verdict: question.judge(&format!("{prompt}{output}"), protocol),
                choice,
                prompt,
                output,
            };
            let line = serde_json::to_string(&answer).map_err(|e| RunError::Failed(e.to_string()))?;
            writeln!(file, "{line}").map_err(cannot_write)?;
            done.push(answer);
        }
    }
    Ok(done)
}

/// The whole answers of `path`, in order from the first; what a cut run left of a line is removed.
fn resume(path: &Path, questions: &[Question]) -> Result<Vec<Answer>, String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut done: Vec<Answer> = Vec::new();
    for line in text.lines() {
        match serde_json::from_str::<Answer>(line) {
            Ok(answer) if answer.index == done.len() => done.push(answer),
            _ => break,
        }
    }
    let differs = |answer: &&Answer| {
        questions
            .get(answer.index)
            .is_none_or(|question| !answer.prompt.contains(&question.instruction))
    };
    if let Some(answer) = done.iter().find(differs) {
        return Err(format!(
            "{}:{}: the answer is to another question than this set's; remove the file, or choose another --out",
            path.display(),
            answer.index + 1
        ));
    }
    let kept: String = text.lines().take(done.len()).map(|line| format!("{line}\n")).collect();
    if kept != text {
        write_then_rename(path, kept.as_bytes()).map_err(|e| e.to_string())?;
    }
    Ok(done)
}
