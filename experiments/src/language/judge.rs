//! The questions of a test set and the judges of the outputs: the seam between the evaluation loop and the benchmarks.

use std::sync::Arc;

use datasets::language::question::Verdict;
use datasets::language::{Gold, Protocol, Question};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A verdict with details.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Errors, or the parts of the verdict, as JSON; null if there are none.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

/// A question's contribution to a further score of its set: the score is the sum of `value` divided by the sum of
/// `weight`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Name of the score, such as `pass@10`.
    pub name: String,
    /// The question's contribution.
    pub value: f64,
    /// The largest possible contribution.
    pub weight: f64,
}

/// Judges the outputs of a model.
pub trait Judge: Send + Sync {
    /// The correct answer, for display.
    fn gold(&self) -> String;

    /// The verdict on one output, that is, on the text after `prompt`.
    fn judge(&self, prompt: &str, output: &str) -> Verdict;

    /// Same as [`Judge::judge`], with details.
    ///
    /// # Errors
    /// A failure of the judge, which says nothing about the output.
    fn judged(&self, prompt: &str, output: &str) -> Result<Judged, String> {
        Ok(Judged {
            verdict: self.judge(prompt, output),
            details: Value::Null,
        })
    }

    /// Further scores, from all samples of the question.
    fn measures(&self, _samples: &[Judged]) -> Vec<Measure> {
        Vec::new()
    }

    /// Texts that end an output and are cut off; the same for all questions of a set.
    fn stop(&self) -> &[String] {
        &[]
    }

    /// The sampling temperature for this question, if it has its own.
    fn temperature(&self) -> Option<f64> {
        None
    }

    /// The follow-up prompt after `output`, including everything before it.
    fn follow_up(&self, _output: &str) -> Option<String> {
        None
    }

    /// False if outputs are only saved here and judged elsewhere: their set has no score.
    fn judges(&self) -> bool {
        true
    }

    /// The score of a question, 0 to 1, from the verdicts on all its samples: by default the fraction of correct
    /// samples, which for one sample is the accuracy. A judge for pass@k returns whether any sample is correct.
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
    /// The options, if there are any, and the correct one.
    pub options: Option<(Vec<String>, String)>,
    /// Who judges the outputs.
    pub judge: Arc<dyn Judge>,
}

/// Extracts the answer from the output as the suites' released code does.
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

    /// Correct if any sample is: pass@k.
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
