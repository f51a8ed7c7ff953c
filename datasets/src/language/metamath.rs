//! MetaMathQA (Yu et al. 2023, arXiv 2309.12284) for training and GSM8K (Cobbe et al. 2021, arXiv 2110.14168) for
//! testing, as in two published comparisons: LoRA-GA's (arXiv 2407.05000), which WeGeFT follows, and PEFT's
//! method_comparison.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::TextError;
use super::records::{self, Record};
use crate::language::question::Verdict;

/// A published comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// LoRA-GA's: questions of the GSM types, answers that end in `#### n`.
    LoraGa,
    /// PEFT's: all questions, unchanged answers.
    Peft,
}

/// A question and its worked answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What the model reads.
    pub prompt: String,
    /// The training target.
    pub response: String,
}

/// Training pairs, and the numbers of rows that were left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pairs {
    /// In file order.
    pub pairs: Vec<Pair>,
    /// Rows of types other than GSM.
    pub other_kinds: usize,
    /// Rows that are too long.
    pub too_long: usize,
}

/// Maximum number of characters of question, a space and answer together in PEFT's comparison.
const MOST_CHARACTERS: usize = 1300;

impl Comparison {
    /// The prompt for a question.
    pub fn prompt(self, question: &str) -> String {
        match self {
            Self::LoraGa => format!("Q: {question}\nA: "),
            Self::Peft => format!("Question: {question} Think step by step.\nAnswer:"),
        }
    }

    /// The prompt for a test question: LoRA-GA's has an additional space at the end, as before an answer in training.
    pub fn test_prompt(self, question: &str) -> String {
        match self {
            Self::LoraGa => self.prompt(question) + " ",
            Self::Peft => self.prompt(question),
        }
    }

    /// The pairs in a MetaMathQA file (JSON, JSONL or parquet with `query`, `response` and `type`). LoRA-GA's limit
    /// counts tokens; the caller must apply it.
    ///
    /// # Errors
    /// A file that cannot be read, a row without one of the fields, no remaining rows.
    pub fn train(self, path: &Path) -> Result<Pairs, TextError> {
        let mut read = Pairs::default();
        for record in records::read_fields(path, &["query", "response", "type"])? {
            let (query, response) = (record.required("query")?, record.required("response")?);
            match self {
                Self::LoraGa => {
                    if !record.required("type")?.contains("GSM") {
                        read.other_kinds += 1;
                        continue;
                    }
                    let worked = response.split("\nThe answer is:").next().unwrap_or(&response);
                    read.pairs.push(Pair {
                        prompt: self.prompt(&query),
                        response: worked.into(),
                    });
                }
                Self::Peft => {
                    if query.chars().count() + 1 + response.chars().count() > MOST_CHARACTERS {
                        read.too_long += 1;
                        continue;
                    }
                    read.pairs.push(Pair {
                        prompt: self.prompt(&query),
                        response,
                    });
                }
            }
        }
        match read.pairs.is_empty() {
            true => Err(TextError::Empty {
                path: path.to_path_buf(),
                what: "question of a kind that is trained on",
            }),
            false => Ok(read),
        }
    }

    /// Questions and correct answers in a GSM8K file (JSON, JSONL or parquet with `question` and `answer`).
    ///
    /// # Errors
    /// A file that cannot be read, a row without one of the fields, an answer without a number after `####`.
    pub fn test(self, path: &Path) -> Result<Vec<(String, String)>, TextError> {
        let pair = |record: Record| {
            let (question, answer) = (record.required("question")?, record.required("answer")?);
            match answer.contains("####") && gold(&answer).is_some() {
                true => Ok((question, answer)),
                false => Err(record.error("field 'answer' has no number after ####, such as #### 1,234".into())),
            }
        };
        records::read_fields(path, &["question", "answer"])?
            .into_iter()
            .map(pair)
            .collect()
    }

    /// Judges `text`, that is prompt and output, by the worked answer `right`.
    pub fn judge(self, text: &str, right: &str) -> Verdict {
        match self {
            Self::LoraGa => {
                let found = first_digits(text);
                Verdict {
                    correct: found.unwrap_or(0) == first_digits(right).unwrap_or(0),
                    extracted: found.map(|number| number.to_string()),
                }
            }
            Self::Peft => {
                let found = last_answer(text);
                let correct = match (&found, last_answer(right)) {
                    (Some(found), Some(right)) => match (decimal(found), decimal(&right)) {
                        (Some(found), Some(right)) => found == right,
                        (None, None) => *found == right,
                        _ => false,
                    },
                    _ => false,
                };
                Verdict {
                    extracted: found,
                    correct,
                }
            }
        }
    }
}

/// The number after `####` in a correct answer, without commas.
pub fn gold(answer: &str) -> Option<f64> {
    /// Most digits: f64 holds integers of this length exactly.
    const MOST: usize = 15;
    let number = answer.rsplit("####").next()?.trim().replace(',', "");
    let digits = number.strip_prefix('-').unwrap_or(&number);
    // Not what else a float can be written as: nan, inf, 1e3.
    let plain = digits.len() <= MOST && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    number.parse().ok().filter(|_| plain)
}

/// LoRA-GA's extraction: the digits right after the first `####` and any spaces. It stops at signs and commas, in
/// answers and references alike: "1,000" counts as "1" (as in the released code).
fn first_digits(text: &str) -> Option<u64> {
    let (_, after) = text.split_once("####")?;
    let after = after.trim_start();
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    after[..end].parse().ok()
}

/// PEFT's extraction: takes the first of these phrases that occurs in the text, and returns what follows its last
/// occurrence, up to the end of the line.
fn last_answer(text: &str) -> Option<String> {
    const PHRASES: [&str; 5] = [
        "The answer is: ",
        "The answer is ",
        "The final answer is: ",
        "The final answer is ",
        "#### ",
    ];
    let text = text.trim().trim_end_matches(['.', '!', '?']);
    let phrase = PHRASES.into_iter().find(|phrase| text.contains(phrase))?;
    let answer = text.rsplit(phrase).next()?.trim();
    let line = answer.split('\n').next()?;
    Some(line.trim_matches([' ', '.', '!', '?', '$', '%']).to_string())
}

/// A number or a fraction.
fn decimal(text: &str) -> Option<f64> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    match text.split_once('/') {
        Some((above, below)) if !below.contains('/') => {
            let below = number(below).filter(|below| *below != 0.0)?;
            Some(number(above)? / below)
        }
        Some(_) => None,
        None => number(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_protocol_extracts_is_no_gold_answer() {
        for (text, number) in [
            ("#### 1,234", Some(1234.0)),
            ("#### -5", Some(-5.0)),
            ("x #### 2.5", Some(2.5)),
        ] {
            assert_eq!(gold(text), number, "{text}");
        }
        for text in [
            "#### nan",
            "#### inf",
            "#### 1e3",
            "#### 12345678901234567890123",
            "####",
            "#### x",
        ] {
            assert_eq!(gold(text), None, "{text}");
        }
    }

    #[test]
    fn answers_are_read_as_each_comparison_reads_them() {
        let lora_ga = |text: &str, right: &str| Comparison::LoraGa.judge(text, right);
        assert!(lora_ga("Q: a\nA:  2 + 3 = 5\n#### 5", "x\n#### 5").correct);
        // A quirk: a sign is not a digit, and commas end the number, in answers and references.
        assert_eq!(lora_ga("#### -5", "#### 5").extracted, None);
        assert!(lora_ga("#### 1", "#### 1,000").correct);
        assert!(lora_ga("no answer", "#### 0").correct);
        assert!(!lora_ga("#### 7 #### 5", "#### 5").correct);
        let peft = |text: &str, right: &str| Comparison::Peft.judge(text, right);
        assert!(peft("so $x$. The answer is: $16$.", "#### 16").correct);
        assert!(peft("The answer is: 1 no. The answer is: 4/2\nQuestion:", "#### 2").correct);
        assert!(peft("#### 50%", "#### 50").correct && peft("The answer is: 5.0", "#### 5").correct);
        assert!(!peft("5", "#### 5").correct && !peft("The answer is: 1/0", "#### 1").correct);
        assert!(!peft("The answer is: 1,000", "#### 1000").correct);
    }

    #[test]
    fn rows_are_filtered_and_cut_as_each_comparison_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("MetaMathQA.json");
        let rows = r#"[{"query": "How many?", "response": "Two.\n#### 2\nThe answer is: 2", "type": "GSM_AnsAug"},
            {"query": "Solve.", "response": "x = 1\nThe answer is: 1", "type": "MATH_SV"}]"#;
        std::fs::write(&path, rows).unwrap();
        let read = Comparison::LoraGa.train(&path).unwrap();
        assert_eq!((read.pairs.len(), read.other_kinds), (1, 1));
        assert_eq!(
            (read.pairs[0].prompt.as_str(), read.pairs[0].response.as_str()),
            ("Q: How many?\nA: ", "Two.\n#### 2")
        );
        let read = Comparison::Peft.train(&path).unwrap();
        assert_eq!((read.pairs.len(), read.too_long), (2, 0));
        assert!(read.pairs[1].response.ends_with("The answer is: 1"));
        std::fs::write(&path, rows.replace("Two.", &"long ".repeat(400))).unwrap();
        assert_eq!(Comparison::Peft.train(&path).unwrap().too_long, 1);
        std::fs::write(&path, rows.replace("\"type\"", "\"kind\"")).unwrap();
        let message = Comparison::LoraGa.train(&path).unwrap_err().to_string();
        assert!(
            message.contains("'type'") && message.contains("MetaMathQA.json"),
            "{message}"
        );
        let test = dir.path().join("test.jsonl");
        std::fs::write(
            &test,
            "{\"question\": \"a\", \"answer\": \"#### 1,234\"}\n{\"question\": \"b\", \"answer\": \"4\"}\n",
        )
        .unwrap();
        let message = Comparison::Peft.test(&test).unwrap_err().to_string();
        assert!(message.contains("####") && message.contains('2'), "{message}");
    }
}
