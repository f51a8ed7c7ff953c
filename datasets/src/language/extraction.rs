//! Extracts answers from outputs, by the rules of the evaluators released with the WeGeFT paper (arXiv 2312.00700).

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::language::template::ALPACA_MARKER;

/// The released code version to follow: GIFT's (the paper's second and third version) or WeGeFT's (its fifth). Their
/// results must not be mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// WeGeFT's (v5): the answer follows the last occurrence of the marker; targets are the output field of the files.
    #[default]
    New,
    /// GIFT's (v2/v3): the answer follows the first occurrence of the marker; commonsense targets are the marker phrase
    /// and the answer.
    Old,
}

/// The phrase before a commonsense answer.
pub const COMMONSENSE_MARKER: &str = "the correct answer is";

impl Protocol {
    /// The protocol of that name.
    ///
    /// # Errors
    /// An unknown name.
    pub fn named(name: &str) -> Result<Self, String> {
        match name {
            "new" => Ok(Self::New),
            "old" => Ok(Self::Old),
            other => Err(format!("protocol '{other}' is unknown; choose new or old")),
        }
    }

    /// The training target: the file's `output`, or the marker phrase and `answer`.
    pub fn commonsense_target(self, output: &str, answer: &str) -> String {
        match self {
            Self::New => output.to_string(),
            Self::Old => format!("{COMMONSENSE_MARKER} {answer}"),
        }
    }

    /// The text after `marker`, left-trimmed; `None` if the marker is missing or nothing follows it.
    fn after<'a>(self, text: &'a str, marker: &str) -> Option<&'a str> {
        let at = match self {
            Self::New => text.rfind(marker),
            Self::Old => text.find(marker),
        }?;
        let rest = text[at + marker.len()..].trim_start();
        (!rest.is_empty()).then_some(rest)
    }
}

/// The label in `text`: everything after the marker, trimmed. Stricter than the keyword search of LLM-Adapters' own
/// evaluator: "true." is not "true".
pub fn label(text: &str, protocol: Protocol) -> Option<String> {
    let marker = match protocol {
        Protocol::New => COMMONSENSE_MARKER.to_string(),
        Protocol::Old => format!("{COMMONSENSE_MARKER} "),
    };
    protocol.after(text, &marker).map(|rest| rest.trim().to_string())
}

/// The text after Alpaca's response marker.
pub fn response(text: &str, protocol: Protocol) -> Option<&str> {
    protocol.after(text, ALPACA_MARKER)
}

/// The last number in `text`, after removing commas.
pub fn number(text: &str) -> Option<f64> {
    static NUMBER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"-?[0-9]+\.?[0-9]*").expect("the pattern is a valid one"));
    let text = text.replace(',', "");
    NUMBER.find_iter(&text).last()?.as_str().parse().ok()
}

/// The first capital letter from A to E anywhere in `text`: the rule of the released code, kept because the published
/// numbers depend on it. It reads "A car …" as the answer A, so the metric is noisy.
pub fn letter(text: &str) -> Option<char> {
    text.chars().find(|letter| ('A'..='E').contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_all_that_follows_the_marker() {
        let label = |text| label(text, Protocol::New);
        assert_eq!(label("q\nthe correct answer is true").as_deref(), Some("true"));
        assert_eq!(
            label("q\nthe correct answer is  answer2 \n").as_deref(),
            Some("answer2")
        );
        assert_eq!(label("q\nthe correct answer is true.").as_deref(), Some("true."));
        assert_eq!(label("q\nthe correct answer is"), None);
        assert_eq!(label("true"), None);
    }

    #[test]
    fn the_new_code_takes_the_last_marker_and_the_old_one_the_first() {
        let text = "the correct answer is a the correct answer is b";
        assert_eq!(label(text, Protocol::New).as_deref(), Some("b"));
        assert_eq!(label(text, Protocol::Old).as_deref(), Some("a the correct answer is b"));
        // The old marker ends with a space.
        assert_eq!(label("the correct answer is\ttrue", Protocol::Old), None);
        let text = "### Response:\n1\n### Response:\n2";
        assert_eq!(response(text, Protocol::New), Some("2"));
        assert_eq!(response(text, Protocol::Old), Some("1\n### Response:\n2"));
        assert_eq!(response("### Response:\n  ", Protocol::New), None);
    }

    #[test]
    fn numbers_are_the_last_ones_without_commas() {
        assert_eq!(number("so 3 + 4 = 7. The answer is 1,234."), Some(1234.0));
        assert_eq!(number("The answer is $18.50"), Some(18.5));
        assert_eq!(number("it is -4"), Some(-4.0));
        assert_eq!(number("10 - 4"), Some(4.0));
        // A sign counts wherever it touches the digits, as in the reference.
        assert_eq!(number("10-4"), Some(-4.0));
        assert_eq!(number("none"), None);
    }

    #[test]
    fn letters_are_the_first_capital_from_a_to_e() {
        assert_eq!(letter("The answer is (D)."), Some('D'));
        assert_eq!(letter("A car goes on. The answer is C."), Some('A'));
        assert_eq!(letter("the answer is b"), None);
        assert_eq!(letter("Rationale: F or G"), None);
    }

    #[test]
    fn targets_of_both_codes() {
        let target = |protocol: Protocol| protocol.commonsense_target("the correct answer is  true", "true");
        assert_eq!(target(Protocol::New), "the correct answer is  true");
        assert_eq!(target(Protocol::Old), "the correct answer is true");
    }
}
