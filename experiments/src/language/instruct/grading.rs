//! Grades and comparisons: a judge's reply about each answer, one JSON line each. An existing file is continued.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use files::File;
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::endpoint::{Endpoint, Usage};
use super::prompts::JudgePrompts;
use crate::cli::interrupt::Interrupter;
use crate::cli::output::tell;
use crate::run::files::{Line, keep_lines};
use crate::run::outcome::RunError;
use crate::run::sealed_lines;

/// A question to a judge about one answer.
#[derive(Debug, Clone)]
pub struct Asking {
    /// Its key in the file: a question's number and turn, or the order of two answers.
    pub key: String,
    /// The judge's system message.
    pub system: String,
    /// The question.
    pub question: String,
}

/// A judgement: one line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Key of the question.
    pub key: String,
    /// Name of the judge.
    pub judge: String,
    /// The whole question to the judge.
    pub question: String,
    /// The judge's whole reply.
    pub reply: String,
    /// The grade in the reply; null if there is none.
    pub score: Option<f64>,
    /// Tokens of all tries, if the judge says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// Asks a judge.
pub struct Grader {
    /// The judge.
    pub endpoint: Endpoint,
    /// Prompts for the judge.
    pub prompts: JudgePrompts,
    /// Questions to ask in parallel.
    pub parallel: usize,
    /// Price in dollars per million tokens read and written.
    pub price: Option<[f64; 2]>,
    /// Stops it.
    pub interrupter: Interrupter,
}

/// How many times a judge is asked if its reply has no grade.
const TRIES: usize = 2;

impl Grader {
    /// The grades of `asked` by key. `grade` extracts a grade from a reply. Judgements are written to `path` as they
    /// arrive.
    ///
    /// # Errors
    /// An interruption, a judge that does not answer, a file that cannot be written.
    pub fn grades(
        &self,
        path: &Path,
        asked: &[Asking],
        grade: fn(&str) -> Option<f64>,
    ) -> Result<BTreeMap<String, Option<f64>>, RunError> {
        let failed = RunError::Failed;
        let cannot_write = |e: std::io::Error| RunError::Failed(format!("cannot write {}: {e}", path.display()));
        let mut lines: Vec<Line<Judgement>> = sealed_lines::read(path).map_err(failed)?;
        // Judgements of other answers or by other judges do not count.
        lines.retain(|(_, said)| {
            let of = |asking: &&Asking| asking.key == said.key && asking.question == said.question;
            said.judge == self.endpoint.model() && asked.iter().any(|asking| of(&asking))
        });
        keep_lines(path, &lines).map_err(failed)?;
        let left = asked
            .iter()
            .filter(|asking| !lines.iter().any(|(_, said)| said.key == asking.key));
        let left: Vec<&Asking> = left.collect();
        let before = lines.len();
        let mut file = File::append(path).map_err(cannot_write)?;
        for some in left.chunks(self.parallel.max(1)) {
            if self.interrupter.should_stop() {
                return Err(RunError::Interrupted);
            }
            let said = std::thread::scope(|scope| {
                let asks: Vec<_> = some
                    .iter()
                    .map(|asking| scope.spawn(|| self.judgement(asking, grade)))
                    .collect();
                let said = asks
                    .into_iter()
                    .map(|ask| ask.join().unwrap_or_else(|_| Err("the judge's thread broke".into())));
                said.collect::<Vec<Result<Judgement, String>>>()
            });
            let mut failure = None;
            for said in said {
                match said {
                    Ok(said) => {
                        let line = sealed_lines::line(&said).map_err(failed)?;
                        file.write_line(&line).map_err(cannot_write)?;
                        lines.push((line, said));
                    }
                    // The other replies are kept nevertheless.
                    Err(message) => failure = Some(message),
                }
            }
            if self.interrupter.should_stop() {
                return Err(RunError::Interrupted);
            }
            if let Some(message) = failure {
                // Paid for, all the same.
                if lines.len() > before {
                    tell(format_args!("  {}", self.describe(lines.len() - before, &lines)));
                }
                return Err(failed(message));
            }
        }
        file.sync().map_err(cannot_write)?;
        if !left.is_empty() {
            tell(format_args!("  {}", self.describe(left.len(), &lines)));
        }
        Ok(lines.into_iter().map(|(_, said)| (said.key, said.score)).collect())
    }

    fn judgement(&self, asking: &Asking, grade: fn(&str) -> Option<f64>) -> Result<Judgement, String> {
        let (mut reply, mut score, mut usage) = (String::new(), None, None);
        for _ in 0..TRIES {
            let (said, tokens) = self.endpoint.ask(&asking.system, &asking.question, &self.interrupter)?;
            reply = said;
            usage = added(usage, tokens);
            score = grade(&reply);
            if score.is_some() {
                break;
            }
        }
        Ok(Judgement {
            key: asking.key.clone(),
            judge: self.endpoint.model().into(),
            question: asking.question.clone(),
            reply,
            score,
            usage,
        })
    }

    /// Progress, and the cost of all judgements so far.
    fn describe(&self, asked: usize, lines: &[Line<Judgement>]) -> String {
        let text = format!("{} judged {asked} answers", self.endpoint.model());
        let Some(used) = lines.iter().map(|(_, said)| said.usage).fold(None, added) else {
            return text + "; it does not say how many tokens it took";
        };
        let Usage {
            prompt_tokens: read,
            completion_tokens: written,
        } = used;
        let mut text = format!("{text}: {read} tokens read, {written} written so far");
        let unknown = lines.iter().filter(|(_, said)| said.usage.is_none()).count();
        if unknown > 0 {
            text += &format!(" (without {unknown} judgements that do not say)");
        }
        if let Some([of_read, of_written]) = self.price {
            let cost = (read as f64 * of_read + written as f64 * of_written) / 1e6;
            text += &format!(", {cost:.2} dollars");
        }
        text
    }
}

/// The sum of what is known.
fn added(a: Option<Usage>, b: Option<Usage>) -> Option<Usage> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.plus(b)),
        (a, b) => a.or(b),
    }
}

/// The mean of the available grades, and the number of missing ones.
pub fn mean<'a>(grades: impl Iterator<Item = &'a Option<f64>>) -> (Option<f64>, usize) {
    let (mut sum, mut count, mut missing) = (0.0, 0, 0);
    for grade in grades {
        match grade {
            Some(grade) => (sum, count) = (sum + grade, count + 1),
            None => missing += 1,
        }
    }
    ((count > 0).then(|| sum / f64::from(count)), missing)
}

static GRADE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\[\[(\d+(?:\.\d+)?)\]\]").expect("a valid pattern"));
static BARE_GRADE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\[(\d+(?:\.\d+)?)\]").expect("a valid pattern"));

/// A grade from 1 to 10 in double brackets, or in single brackets if there are no double ones.
pub fn grade(reply: &str) -> Option<f64> {
    let found = GRADE.captures(reply).or_else(|| BARE_GRADE.captures(reply))?;
    found[1].parse().ok().filter(|grade| (0.0..=10.0).contains(grade))
}

/// The last of `[[A]]`, `[[B]]` and `[[C]]`, as 0, 1 or 0.5.
pub fn preference(reply: &str) -> Option<f64> {
    let verdicts = [("[[A]]", 0.0), ("[[B]]", 1.0), ("[[C]]", 0.5)];
    let found = verdicts
        .iter()
        .filter_map(|(text, value)| Some((reply.rfind(text)?, *value)));
    found.max_by_key(|(at, _)| *at).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grades_and_preferences_are_found_where_they_stand() {
        assert_eq!(grade("Good. Grade: [[8.5]]"), Some(8.5));
        assert_eq!(grade("[3] of 10"), Some(3.0));
        assert_eq!((grade("8"), grade("[[11]]"), grade("[[x]]")), (None, None, None));
        assert_eq!(preference("not [[A]] but [[B]]"), Some(1.0));
        assert_eq!((preference("[[C]]"), preference("A")), (Some(0.5), None));
        assert_eq!(mean([Some(1.0), None, Some(2.0)].iter()), (Some(1.5), 1));
    }
}
