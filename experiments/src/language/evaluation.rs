//! Answers to the questions of a test set, by generation and by likelihood, one JSON line each.

use std::collections::BTreeMap;
use std::path::Path;

use backbones::lm::Decoder;
use burn::train::Interrupter;
use datasets::language::question::Verdict;
use files::File;
use serde::{Deserialize, Serialize};

use crate::language::answer::answers;
use crate::language::judge::Asked;
use crate::language::likelihood::{Choice, choose};
use crate::language::model::Lm;
use crate::language::settings::Evaluation;
use crate::run::files::{Line, keep_lines, read_lines};
use crate::run::outcome::RunError;

/// What a model made of a question: a line of the set's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Number of the question, from 0.
    pub index: usize,
    /// All that the model read.
    pub prompt: String,
    /// All that it wrote, in the first sample.
    pub output: String,
    /// The right answer.
    pub gold: String,
    /// What was extracted, and whether it is right.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The most likely option, where there are options.
    pub choice: Option<Choice>,
    /// Score, 0 to 1, of several samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// What the model wrote in the other samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
}

impl Answer {
    fn score(&self) -> f64 {
        self.score.unwrap_or(f64::from(u8::from(self.verdict.correct)))
    }
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
        let percent = |right: f64, of: usize| 100.0 * right / of as f64;
        let choices: Vec<&Choice> = answers.iter().filter_map(|answer| answer.choice.as_ref()).collect();
        let chosen = choices.iter().filter(|choice| choice.correct).count();
        Self {
            accuracy: percent(answers.iter().map(Answer::score).sum(), answers.len()),
            likelihood: (!choices.is_empty()).then(|| percent(chosen as f64, choices.len())),
            count: answers.len(),
        }
    }
}

/// Who answers.
pub struct Answering<'a> {
    /// Bound, without autodiff.
    pub model: &'a Decoder,
    /// Its tokenizer.
    pub lm: &'a Lm,
    /// How questions are answered.
    pub settings: &'a Evaluation,
    /// Seed of what is drawn.
    pub seed: u64,
    /// Stops it.
    pub interrupter: &'a Interrupter,
}

impl Answering<'_> {
    /// Answers to `questions`, written to `path` as they come. A file that holds some of them already is gone on with.
    ///
    /// # Errors
    /// An interruption, or a file that is another set's or cannot be written.
    pub fn evaluate(&self, questions: &[Asked], path: &Path) -> Result<Vec<Answer>, RunError> {
        let mut done = resume(path, questions).map_err(RunError::Failed)?;
        let cannot_write = |e: std::io::Error| RunError::Failed(format!("cannot write {}: {e}", path.display()));
        let mut file = File::append(path).map_err(cannot_write)?;
        let missing: Vec<usize> = (0..questions.len()).filter(|index| !done.contains_key(index)).collect();
        for indices in missing.chunks(self.settings.eval_batch_size) {
            if self.interrupter.should_stop() {
                return Err(RunError::Interrupted);
            }
            let asked: Vec<(usize, &Asked)> = indices.iter().map(|index| (*index, &questions[*index])).collect();
            for answer in self.answer(&asked).map_err(RunError::Failed)? {
                let line = serde_json::to_string(&answer).map_err(|e| RunError::Failed(e.to_string()))?;
                file.write_line(&line).map_err(cannot_write)?;
                done.insert(answer.index, (line, answer));
            }
        }
        // They are on the disk before what is made of them.
        file.sync().map_err(cannot_write)?;
        let lines: Vec<Line<Answer>> = done.into_values().collect();
        keep_lines(path, &lines).map_err(RunError::Failed)?;
        Ok(lines.into_iter().map(|(_, answer)| answer).collect())
    }

    /// Answers to some questions, each with its number.
    fn answer(&self, asked: &[(usize, &Asked)]) -> Result<Vec<Answer>, String> {
        let prompts: Vec<String> = asked.iter().map(|(_, question)| question.prompt.clone()).collect();
        let first = asked.first().map_or(0, |(index, _)| *index) as u64;
        let mut outputs = vec![Vec::new(); asked.len()];
        for sample in 0..self.settings.samples {
            let seed = self.seed.wrapping_add(first).wrapping_add((sample as u64) << 32);
            let texts = answers(self.model, self.lm, &prompts, self.settings, seed)?;
            for (outputs, text) in outputs.iter_mut().zip(texts) {
                outputs.push(text);
            }
        }
        let questions = asked.iter().zip(prompts).zip(outputs);
        questions
            .map(|(((index, question), prompt), outputs)| {
                let verdicts: Vec<Verdict> = outputs.iter().map(|o| question.judge.judge(&prompt, o)).collect();
                let choice = match &question.options {
                    Some((options, gold)) if self.settings.likelihood => {
                        Some(choose(self.model, self.lm, options, gold, &prompt)?)
                    }
                    _ => None,
                };
                let score = (outputs.len() > 1).then(|| question.judge.score(&verdicts));
                let mut outputs = outputs.into_iter();
                let (Some(output), Some(verdict)) = (outputs.next(), verdicts.into_iter().next()) else {
                    return Err("no answer was asked for".into());
                };
                Ok(Answer {
                    index: *index,
                    gold: question.judge.gold(),
                    verdict,
                    choice,
                    prompt,
                    output,
                    score,
                    others: outputs.collect(),
                })
            })
            .collect()
    }
}

/// True if `path` holds an answer to each of that many questions.
pub fn is_answered(path: &Path, questions: usize) -> bool {
    let lines = std::fs::read(path).unwrap_or_default();
    lines.iter().filter(|byte| **byte == b'\n').count() == questions && lines.last().is_none_or(|last| *last == b'\n')
}

/// The answers of `path` by number; what a cut run left of a line is removed.
fn resume(path: &Path, questions: &[Asked]) -> Result<BTreeMap<usize, Line<Answer>>, String> {
    let lines: Vec<Line<Answer>> = read_lines(path)?;
    let differs = |answer: &&Answer| {
        questions
            .get(answer.index)
            .is_none_or(|question| answer.prompt != question.prompt)
    };
    if let Some(answer) = lines.iter().map(|(_, answer)| answer).find(differs) {
        return Err(format!(
            "{}:{}: the answer is to another question than this set's; remove the file, or choose another --out",
            path.display(),
            answer.index + 1
        ));
    }
    keep_lines(path, &lines)?;
    Ok(lines.into_iter().map(|line| (line.1.index, line)).collect())
}
