//! What a test set asks, and who judges the outputs: the seam between the evaluation loop and the benchmarks.

use std::sync::Arc;

use datasets::language::question::Verdict;
use datasets::language::{Gold, Protocol, Question};

/// Judges what a model wrote.
pub trait Judge: Send + Sync {
    /// The right answer, for people.
    fn gold(&self) -> String;

    /// What is to be made of one output, that is, of all that stands after `prompt`.
    fn judge(&self, prompt: &str, output: &str) -> Verdict;

    /// The score of a question, 0 to 1, by the verdicts on all its samples: by default the share that is right, with one
    /// sample an accuracy. A judge of pass@k says here whether any of them is.
    fn score(&self, verdicts: &[Verdict]) -> f64 {
        let right = verdicts.iter().filter(|verdict| verdict.correct).count();
        right as f64 / verdicts.len().max(1) as f64
    }
}

/// A question as a model reads it.
#[derive(Clone)]
pub struct Asked {
    /// All that the model reads.
    pub prompt: String,
    /// Options, where there are any, and the right one.
    pub options: Option<(Vec<String>, String)>,
    /// Who judges the outputs.
    pub judge: Arc<dyn Judge>,
}

/// The answer that stands in the output, extracted as the suites' released code does.
struct Extraction {
    question: Question,
    protocol: Protocol,
}

impl Judge for Extraction {
    fn gold(&self) -> String {
        self.question.gold_text()
    }

    fn judge(&self, prompt: &str, output: &str) -> Verdict {
        self.question.judge(&format!("{prompt}{output}"), self.protocol)
    }
}

impl Asked {
    /// A question of the commonsense or arithmetic suite.
    pub fn extracted(question: Question, protocol: Protocol) -> Self {
        let options = match &question.gold {
            Gold::Label(gold) if !question.options.is_empty() => Some((question.options.clone(), gold.clone())),
            _ => None,
        };
        Self {
            prompt: question.template().prompt(&question.instruction, ""),
            options,
            judge: Arc::new(Extraction { question, protocol }),
        }
    }
}

/// A test set.
#[derive(Clone)]
pub struct TestSet {
    /// Name in tables.
    pub name: String,
    /// Its questions.
    pub questions: Vec<Asked>,
    /// Whether it counts in the average.
    pub scored: bool,
    /// Name of the score.
    pub metric: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Right if any sample is: pass@k.
    struct Any;

    impl Judge for Any {
        fn gold(&self) -> String {
            "4".into()
        }

        fn judge(&self, _prompt: &str, output: &str) -> Verdict {
            Verdict {
                extracted: Some(output.into()),
                correct: output == "4",
            }
        }

        fn score(&self, verdicts: &[Verdict]) -> f64 {
            f64::from(u8::from(verdicts.iter().any(|verdict| verdict.correct)))
        }
    }

    #[test]
    fn a_judge_decides_what_several_samples_are_worth() {
        let verdicts: Vec<Verdict> = ["5", "4", "3"].map(|output| Any.judge("2 + 2 = ", output)).to_vec();
        assert_eq!(Any.score(&verdicts), 1.0);
        let question = Question {
            instruction: "2 + 2?".into(),
            gold: Gold::Number(4.0),
            options: Vec::new(),
        };
        let asked = Asked::extracted(question, Protocol::named("new").unwrap());
        assert!((asked.judge.score(&verdicts) - 1.0 / 3.0).abs() < 1e-12);
        assert!(asked.prompt.ends_with("### Response:\n") && asked.options.is_none());
    }
}
