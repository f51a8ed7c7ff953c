//! Answers to the questions of a test set, by generation and by likelihood, one JSON line each.

use std::collections::BTreeMap;
use std::path::Path;

use backbones::lm::Decoder;
use datasets::language::question::Verdict;
use files::File;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::interrupt::Interrupter;
use crate::language::answer::answers;
use crate::language::judge::{Asked, Judged, Measure};
use crate::language::likelihood::{Choice, Question, choose};
use crate::language::model::Lm;
use crate::language::settings::Evaluation;
use crate::run::files::{Line, keep_lines};
use crate::run::outcome::RunError;
use crate::run::sealed_lines;

/// A model's answer to a question: one line of the set's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Number of the question, from 0.
    pub index: usize,
    /// All that the model read.
    pub prompt: String,
    /// The whole output of the first sample.
    pub output: String,
    /// The right answer.
    pub gold: String,
    /// The extracted answer, and whether it is correct.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The most likely option, if the question has options.
    pub choice: Option<Choice>,
    /// Score over several samples, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// The outputs of the other samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// Further details from the judge about the first sample.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
    /// The verdicts on the other samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_verdicts: Vec<Judged>,
    /// Its contributions to further scores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measures: Vec<Measure>,
    /// The follow-up question and the answer to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_up: Option<FollowUp>,
}

/// The second turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FollowUp {
    /// All that the model read.
    pub prompt: String,
    /// The whole output.
    pub output: String,
}

impl Answer {
    /// The outputs of all samples.
    pub fn outputs(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.output).chain(&self.others)
    }

    /// The answers extracted from all samples.
    pub fn extracted(&self) -> impl Iterator<Item = &str> {
        let others = self.other_verdicts.iter().map(|judged| &judged.verdict);
        let all = std::iter::once(&self.verdict).chain(others);
        all.map(|verdict| verdict.extracted.as_deref().unwrap_or_default())
    }

    fn score(&self) -> f64 {
        self.score.unwrap_or(f64::from(u8::from(self.verdict.correct)))
    }
}

/// Percentage of correct answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// By generation.
    pub accuracy: f64,
    /// By likelihood, if the questions have options.
    pub likelihood: Option<f64>,
    /// Further scores: name, percent.
    pub further: Vec<(String, f64)>,
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
            further: further(answers),
            count: answers.len(),
        }
    }
}

/// The further scores of `answers`, in the order in which the first one names them.
fn further(answers: &[Answer]) -> Vec<(String, f64)> {
    let names = answers.first().map_or(&[][..], |answer| &answer.measures);
    let of = |name: &str| {
        let measures = answers.iter().flat_map(|answer| &answer.measures);
        let (mut value, mut weight) = (0.0, 0.0);
        for measure in measures.filter(|measure| measure.name == name) {
            value += measure.value;
            weight += measure.weight;
        }
        100.0 * value / weight
    };
    names
        .iter()
        .map(|measure| (measure.name.clone(), of(&measure.name)))
        .collect()
}

/// A model that answers questions.
pub struct Answering<'a> {
    /// Bound, without autodiff.
    pub model: &'a Decoder,
    /// Its tokenizer.
    pub lm: &'a Lm,
    /// How questions are answered.
    pub settings: &'a Evaluation,
    /// Seed for sampling.
    pub seed: u64,
    /// Stops it.
    pub interrupter: &'a Interrupter,
}

impl Answering<'_> {
    /// Answers `questions` and appends each answer to `path` as it arrives. If the file has some of the answers
    /// already, it is continued.
    ///
    /// # Errors
    /// An interruption, or a file that belongs to another set or cannot be written.
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
                let line = sealed_lines::line(&answer).map_err(RunError::Failed)?;
                file.write_line(&line).map_err(cannot_write)?;
                done.insert(answer.index, (line, answer));
            }
        }
        // They must be on disk before anything is derived from them.
        file.sync().map_err(cannot_write)?;
        let lines: Vec<Line<Answer>> = done.into_values().collect();
        keep_lines(path, &lines).map_err(RunError::Failed)?;
        Ok(lines.into_iter().map(|(_, answer)| answer).collect())
    }

    /// Answers some questions, each given with its index.
    fn answer(&self, asked: &[(usize, &Asked)]) -> Result<Vec<Answer>, String> {
        let prompts: Vec<String> = asked.iter().map(|(_, question)| question.prompt.clone()).collect();
        let first = asked.first().map_or(0, |(index, _)| *index) as u64;
        let mut outputs = vec![Vec::new(); asked.len()];
        for sample in 0..self.settings.samples {
            let seed = self.seed.wrapping_add(first).wrapping_add((sample as u64) << 32);
            let texts = self.texts(asked, &prompts, seed)?;
            for (outputs, text) in outputs.iter_mut().zip(texts) {
                outputs.push(text);
            }
        }
        let follow_ups = self.follow_ups(asked, &outputs, self.seed.wrapping_add(first))?;
        let choices = self.choices(asked)?;
        let questions = asked.iter().zip(prompts).zip(outputs).zip(follow_ups).zip(choices);
        questions
            .map(|(((((index, question), prompt), outputs), follow_up), choice)| {
                // In parallel: a judge may run programs.
                let judged = outputs.par_iter().map(|output| question.judge.judged(&prompt, output));
                let judged = judged.collect::<Result<Vec<Judged>, String>>()?;
                Answer::new(*index, question, prompt, (outputs, judged), choice, follow_up)
            })
            .collect()
    }

    /// The most likely options of the questions that have some, if that is asked for.
    fn choices(&self, asked: &[(usize, &Asked)]) -> Result<Vec<Option<Choice>>, String> {
        let mut choices = vec![None; asked.len()];
        if !self.settings.likelihood {
            return Ok(choices);
        }
        let with_options = asked.iter().enumerate().filter_map(|(at, (_, question))| {
            let (options, gold) = question.options.as_ref()?;
            let prompt = &question.prompt;
            Some((at, Question { prompt, options, gold }))
        });
        let (places, questions): (Vec<usize>, Vec<Question>) = with_options.unzip();
        for (at, choice) in places.into_iter().zip(choose(self.model, self.lm, &questions)?) {
            choices[at] = Some(choice);
        }
        Ok(choices)
    }

    /// The model's continuation of each prompt. Questions with different temperatures go into different batches.
    fn texts(&self, asked: &[(usize, &Asked)], prompts: &[String], seed: u64) -> Result<Vec<String>, String> {
        let own = |(_, question): &(usize, &Asked)| question.judge.temperature().unwrap_or(self.settings.temperature);
        let mut texts = vec![String::new(); prompts.len()];
        let mut left: Vec<usize> = (0..prompts.len()).collect();
        while let Some(first) = left.first() {
            let temperature = own(&asked[*first]);
            let (now, later): (Vec<usize>, Vec<usize>) = left.iter().partition(|at| own(&asked[**at]) == temperature);
            let batch: Vec<String> = now.iter().map(|at| prompts[*at].clone()).collect();
            let settings = Evaluation {
                temperature,
                ..self.settings.clone()
            };
            let stop = asked[now[0]].1.judge.stop();
            let written = answers(self.model, self.lm, &batch, &settings, stop, seed)?;
            for (at, text) in now.into_iter().zip(written) {
                texts[at] = text;
            }
            left = later;
        }
        Ok(texts)
    }

    /// The second turns of the questions that have one.
    fn follow_ups(
        &self,
        asked: &[(usize, &Asked)],
        outputs: &[Vec<String>],
        seed: u64,
    ) -> Result<Vec<Option<FollowUp>>, String> {
        let mut follow_ups = vec![None; asked.len()];
        let prompts = asked
            .iter()
            .zip(outputs)
            .map(|((_, question), outputs)| outputs.first().and_then(|output| question.judge.follow_up(output)));
        let (at, prompts): (Vec<usize>, Vec<String>) = prompts
            .enumerate()
            .filter_map(|(at, prompt)| Some((at, prompt?)))
            .unzip();
        if prompts.is_empty() {
            return Ok(follow_ups);
        }
        let asked: Vec<(usize, &Asked)> = at.iter().map(|at| asked[*at]).collect();
        let texts = self.texts(&asked, &prompts, seed)?;
        for ((at, prompt), output) in at.into_iter().zip(prompts).zip(texts) {
            follow_ups[at] = Some(FollowUp { prompt, output });
        }
        Ok(follow_ups)
    }
}

impl Answer {
    /// The answer to a question, from its samples and their verdicts.
    fn new(
        index: usize,
        question: &Asked,
        prompt: String,
        (outputs, judged): (Vec<String>, Vec<Judged>),
        choice: Option<Choice>,
        follow_up: Option<FollowUp>,
    ) -> Result<Self, String> {
        let verdicts: Vec<Verdict> = judged.iter().map(|judged| judged.verdict.clone()).collect();
        let score = (outputs.len() > 1).then(|| question.judge.score(&verdicts));
        let measures = question.judge.measures(&judged);
        let (mut outputs, mut judged) = (outputs.into_iter(), judged.into_iter());
        let (Some(output), Some(first)) = (outputs.next(), judged.next()) else {
            return Err("no answer was asked for".into());
        };
        Ok(Self {
            index,
            gold: question.judge.gold(),
            verdict: first.verdict,
            details: first.details,
            choice,
            prompt,
            output,
            score,
            others: outputs.collect(),
            other_verdicts: judged.filter(|_| score.is_some()).collect(),
            measures,
            follow_up,
        })
    }
}

/// True if `path` has an answer to each of that many questions, all of them intact.
pub fn is_answered(path: &Path, questions: usize) -> bool {
    let text = files::read_text(path, u64::MAX).unwrap_or_default();
    text.lines().count() == questions
        && (text.is_empty() || text.ends_with('\n'))
        && text.lines().all(sealed_lines::holds)
}

/// The answers in `path` by index; an incomplete line from an interrupted run is removed, and so is a damaged one.
fn resume(path: &Path, questions: &[Asked]) -> Result<BTreeMap<usize, Line<Answer>>, String> {
    let lines: Vec<Line<Answer>> = sealed_lines::read(path)?;
    let differs = |answer: &&Answer| {
        questions
            .get(answer.index)
            .is_none_or(|question| answer.prompt != question.prompt || answer.gold != question.judge.gold())
    };
    if let Some(answer) = lines.iter().map(|(_, answer)| answer).find(differs) {
        return Err(format!(
            "{}:{}: this answers a question that is not in the test set; remove the file, or choose another --out",
            path.display(),
            answer.index + 1
        ));
    }
    keep_lines(path, &lines)?;
    Ok(lines.into_iter().map(|line| (line.1.index, line)).collect())
}
