//! Instruction tuning: the training sets in the formats in which they are distributed, and the prompts of AlpacaEval
//! and MT-Bench.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::language::records::{self, Record};
use crate::language::{Example, Examples, Fields, Message, Template, TextError, example};

/// Turns that MT-Bench and its judges have at most.
pub const MT_BENCH_TURNS: usize = 2;

/// The protocol for training examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// The examples as in the files, as in the WeGeFT paper's earlier runs on Alpaca and UltraFeedback.
    Plain,
    /// LoRA-GA's, for WizardLM: a space before each answer, and no answers that refuse.
    LoraGa,
}

/// The examples in `paths`: Alpaca's instruction, input and output; UltraFeedback with its chosen answer, or with the
/// best-scored of several completions; and everything that [`example::read`] reads.
///
/// # Errors
/// As [`example::read`].
pub fn train(paths: &[PathBuf], fields: &Fields, recipe: Recipe) -> Result<Examples, TextError> {
    let mut wanted = fields.names();
    wanted.extend(["chosen", "completions", "prompt", "instruction"]);
    example::read_with(paths, &wanted, |record| {
        let example = match (record.value("chosen"), record.value("completions")) {
            (Some(chosen), _) => chosen_answer(record, chosen)?,
            (None, Some(Value::Array(completions))) => best_answer(record, completions)?,
            _ => example::parse(record, fields)?,
        };
        Ok(match recipe {
            Recipe::Plain => example,
            Recipe::LoraGa => spaced(example),
        })
    })
}

/// UltraFeedback binarized: `chosen` is a conversation, or an answer to `prompt`.
fn chosen_answer(record: &Record, chosen: &Value) -> Result<Example, TextError> {
    match chosen {
        Value::Array(turns) => {
            let turns = turns.iter().enumerate().map(|(at, turn)| {
                let message = Message::from_json(turn);
                message.map_err(|message| record.error(format!("message {} of 'chosen' {message}", at + 1)))
            });
            conversation(turns.collect::<Result<_, _>>()?)
                .ok_or_else(|| record.error("field 'chosen' is no question and answer".into()))
        }
        Value::String(answer) => Ok(Example::Instruction {
            instruction: match record.value("prompt") {
                Some(_) => record.required("prompt")?,
                None => record.required("instruction")?,
            },
            input: String::new(),
            output: answer.clone(),
        }),
        other => Err(record.error(format!(
            "field 'chosen' is {}, expected an answer or a list of messages",
            records::kind(other)
        ))),
    }
}

/// A single question and answer become an instruction; longer conversations stay unchanged; `None` if there is neither.
fn conversation(messages: Vec<Message>) -> Option<Example> {
    match &messages[..] {
        [question, answer] if question.role == "user" && answer.is_of_assistant() => Some(Example::Instruction {
            instruction: question.content.clone(),
            input: String::new(),
            output: answer.content.clone(),
        }),
        [.., last] if last.is_of_assistant() => Some(Example::Chat(example::Chat {
            messages,
            ..example::Chat::default()
        })),
        _ => None,
    }
}

/// UltraFeedback in its authors' format: the completion with the greatest `overall_score`, the first one in case of
/// ties.
fn best_answer(record: &Record, completions: &[Value]) -> Result<Example, TextError> {
    let mut best: Option<(f64, &str)> = None;
    for completion in completions {
        let score = completion["overall_score"].as_f64();
        let (Some(score), Some(response)) = (score, completion["response"].as_str()) else {
            return Err(record.error("a completion lacks 'overall_score' or 'response'".into()));
        };
        if best.is_none_or(|(most, _)| score > most) {
            best = Some((score, response));
        }
    }
    Ok(Example::Instruction {
        instruction: record.required("instruction")?,
        input: String::new(),
        output: best.map_or(String::new(), |(_, response)| response.into()),
    })
}

/// An instruction in LoRA-GA's form; if the answer refuses, it becomes empty, so the example is left out.
fn spaced(example: Example) -> Example {
    let Example::Instruction {
        instruction,
        input,
        output,
    } = example
    else {
        return example;
    };
    let lower = output.to_lowercase();
    let refuses = lower.contains("sorry") || lower.contains("as an ai");
    Example::Completion {
        prompt: Template::Alpaca.prompt(&instruction, &input),
        completion: match refuses || output.trim().is_empty() {
            true => String::new(),
            false => format!(" {output}"),
        },
    }
}

/// A prompt of AlpacaEval, and the baseline answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// The prompt.
    pub instruction: String,
    /// The part of the benchmark to which it belongs.
    pub dataset: String,
    /// The baseline's answer.
    pub output: Option<String>,
    /// The author of that answer.
    pub generator: String,
}

/// The prompts in alpaca_eval.json, or the answers in a model_outputs.json.
///
/// # Errors
/// A file that cannot be read, an item without an instruction.
pub fn alpaca_eval(path: &Path) -> Result<Vec<Compared>, TextError> {
    let read = |record: &Record| {
        Ok(Compared {
            instruction: record.required("instruction")?,
            dataset: record.text("dataset")?.unwrap_or_default(),
            output: record.text("output")?,
            generator: record.text("generator")?.unwrap_or_else(|| "baseline".into()),
        })
    };
    records::read(path)?.iter().map(read).collect()
}

/// A question of MT-Bench.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// Its number.
    pub id: u64,
    /// Its category, which determines the temperature.
    pub category: String,
    /// The user's turns.
    pub turns: Vec<String>,
    /// Reference answers for the turns, if there are any.
    pub reference: Vec<String>,
}

impl Conversation {
    /// FastChat's temperature for this category.
    pub fn temperature(&self) -> f64 {
        match self.category.as_str() {
            "extraction" | "math" | "coding" | "reasoning" => 0.0,
            "stem" | "humanities" => 0.1,
            _ => 0.7,
        }
    }

    /// Whether the judge sees reference answers.
    pub fn needs_reference(&self) -> bool {
        matches!(self.category.as_str(), "math" | "reasoning" | "coding")
    }
}

/// The questions in question.jsonl, with the reference answers in `references` in FastChat's format, if given.
///
/// # Errors
/// A file that cannot be read, a question without number, category or turns.
pub fn mt_bench(path: &Path, references: Option<&Path>) -> Result<Vec<Conversation>, TextError> {
    let number = |record: &Record| {
        let found = record.value("question_id").and_then(Value::as_u64);
        found.ok_or_else(|| record.error("field 'question_id' is absent or no number".into()))
    };
    let texts = |record: &Record, value: Option<&Value>, name: &str| -> Result<Vec<String>, TextError> {
        let wrong = || record.error(format!("field '{name}' is absent or no list of strings"));
        let list = value
            .and_then(Value::as_array)
            .filter(|list| !list.is_empty())
            .ok_or_else(wrong)?;
        list.iter()
            .map(|item| item.as_str().map(String::from).ok_or_else(wrong))
            .collect()
    };
    let mut answers = Vec::new();
    if let Some(path) = references {
        for record in records::read(path)? {
            let turns = record.value("choices").and_then(|choices| choices.get(0)?.get("turns"));
            answers.push((number(&record)?, texts(&record, turns, "choices")?));
        }
    }
    let mut seen = BTreeSet::new();
    records::read(path)?
        .iter()
        .map(|record| {
            let id = number(record)?;
            if !seen.insert(id) {
                return Err(record.error(format!("question {id} is there twice; give each a number of its own")));
            }
            let turns = texts(record, record.value("turns"), "turns")?;
            if turns.len() > MT_BENCH_TURNS {
                let message = format!(
                    "question {id} has {} turns; MT-Bench has at most {MT_BENCH_TURNS}",
                    turns.len()
                );
                return Err(record.error(message));
            }
            Ok(Conversation {
                id,
                category: record.required("category")?,
                turns,
                reference: answers
                    .iter()
                    .find(|(of, _)| *of == id)
                    .map_or(Vec::new(), |(_, turns)| turns.clone()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn read(text: &str, recipe: Recipe) -> Result<Examples, TextError> {
        let (_folder, path) = written("a.jsonl", text);
        train(&[path], &Fields::default(), recipe)
    }

    #[test]
    fn ultrafeedback_gives_the_chosen_answer_in_each_of_its_forms() {
        let text = r#"{"prompt": "q", "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}], "rejected": []}
{"prompt": "q", "chosen": "good", "rejected": "bad"}
{"instruction": "q", "completions": [{"response": "bad", "overall_score": 3}, {"response": "good", "overall_score": 7.5}]}
{"instruction": "q", "input": "", "output": "good"}"#;
        let read = read(text, Recipe::Plain).unwrap();
        let expected = Example::Instruction {
            instruction: "q".into(),
            input: String::new(),
            output: "good".into(),
        };
        assert_eq!(read.examples, vec![expected; 4]);
    }

    #[test]
    fn lora_ga_s_recipe_leaves_refusals_out_and_puts_a_space_before_answers() {
        let text = "{\"instruction\": \"q\", \"output\": \"yes\"}\n{\"instruction\": \"q\", \"output\": \"As an AI I cannot\"}\n\
                    {\"instruction\": \"q\", \"output\": \"I am SORRY\"}";
        let read = read(text, Recipe::LoraGa).unwrap();
        assert_eq!((read.examples.len(), read.empty), (1, 2));
        assert!(matches!(&read.examples[0], Example::Completion { completion, .. } if completion == " yes"));
    }

    #[test]
    fn bad_examples_are_named() {
        let message = |text: &str| read(text, Recipe::Plain).unwrap_err().to_string();
        assert!(message(r#"{"chosen": 3}"#).contains("a.jsonl:1: field 'chosen' is a number"));
        assert!(message(r#"{"instruction": "q", "completions": [{}]}"#).contains("lacks 'overall_score'"));
        assert!(message(r#"{"chosen": []}"#).contains("no question and answer"));
    }

    #[test]
    fn mt_bench_has_turns_temperatures_and_references() {
        let question = "{\"question_id\": 101, \"category\": \"math\", \"turns\": [\"a\", \"b\"]}\n";
        let (_a, questions) = written("question.jsonl", question);
        let (_b, references) = written(
            "gpt-4.jsonl",
            r#"{"question_id": 101, "choices": [{"turns": ["1", "2"]}]}"#,
        );
        let read = mt_bench(&questions, Some(&references)).unwrap().remove(0);
        assert_eq!((read.temperature(), read.needs_reference()), (0.0, true));
        assert_eq!(read.reference, ["1", "2"]);
        let (_c, bad) = written("question.jsonl", "{\"question_id\": 1, \"category\": \"math\"}");
        let message = mt_bench(&bad, None).unwrap_err().to_string();
        assert!(
            message.ends_with("question.jsonl:1: field 'turns' is absent or no list of strings"),
            "{message}"
        );
    }
}
