//! Questions of a test set, and the judgement of outputs.

use serde::{Deserialize, Serialize};

use crate::language::extraction::{self, Protocol};
use crate::language::template::Template;

/// The correct answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gold {
    /// A label, compared as text: `true`, `solution2`, `answer4`.
    Label(String),
    /// A number, correct within 0.001.
    Number(f64),
    /// A letter from A to E.
    Letter(char),
}

/// One test question.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// What the model reads, before the template.
    pub instruction: String,
    /// The correct answer.
    pub gold: Gold,
    /// The labels to choose from, if the question has options.
    pub options: Vec<String>,
}

/// The verdict on a model's output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The answer in the output, if one was found.
    pub extracted: Option<String>,
    /// Whether it is correct.
    pub correct: bool,
}

impl Question {
    /// Judges `text` (prompt and output, decoded together without special tokens, as the released evaluators do).
    pub fn judge(&self, text: &str, protocol: Protocol) -> Verdict {
        let (extracted, correct) = match &self.gold {
            Gold::Label(label) => {
                let found = extraction::label(text, protocol);
                let correct = found.as_ref() == Some(label);
                (found, correct)
            }
            Gold::Number(gold) => {
                let found = extraction::response(text, protocol).and_then(extraction::number);
                let correct = found.is_some_and(|found| (found - gold).abs() <= 1e-3);
                (found.map(|found| found.to_string()), correct)
            }
            Gold::Letter(gold) => {
                let found = extraction::response(text, protocol).and_then(extraction::letter);
                (found.map(String::from), found == Some(*gold))
            }
        };
        Verdict { extracted, correct }
    }

    /// The template for this kind of question.
    pub fn template(&self) -> Template {
        match self.gold {
            Gold::Label(_) => Template::Plain,
            Gold::Number(_) | Gold::Letter(_) => Template::Alpaca,
        }
    }

    /// The correct answer as text.
    pub fn gold_text(&self) -> String {
        match &self.gold {
            Gold::Label(label) => label.clone(),
            Gold::Number(number) => number.to_string(),
            Gold::Letter(letter) => letter.to_string(),
        }
    }
}
