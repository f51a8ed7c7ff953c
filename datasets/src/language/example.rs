//! Training examples: instruction/input/output, prompt/completion, or chat messages.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::language::TextError;
use crate::language::records::{self, Record, kind};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// system, user or assistant.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self {
            role: "user".into(),
            content: content.into(),
        }
    }
}

/// One training example. Only the response (output, completion, the assistant's turns) is learned.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    /// A task in words, its input (often empty), and the wanted output.
    Instruction {
        /// The task.
        instruction: String,
        /// What it acts on.
        input: String,
        /// The response.
        output: String,
    },
    /// A text and how it goes on.
    Completion {
        /// The text.
        prompt: String,
        /// The response.
        completion: String,
    },
    /// A conversation whose last turn is the assistant's.
    Chat(Vec<Message>),
}

impl Example {
    /// True if there is nothing to learn from it.
    pub fn is_empty(&self) -> bool {
        let response = match self {
            Self::Instruction { output, .. } => output,
            Self::Completion { completion, .. } => completion,
            Self::Chat(messages) => match messages.iter().rfind(|message| message.role == "assistant") {
                Some(message) => &message.content,
                None => return true,
            },
        };
        response.trim().is_empty()
    }
}

/// Names of the fields in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields {
    /// The task in words.
    pub instruction: String,
    /// What the task acts on; may be absent.
    pub input: String,
    /// The response to an instruction.
    pub output: String,
    /// A text.
    pub prompt: String,
    /// How it goes on.
    pub completion: String,
    /// A conversation.
    pub messages: String,
}

impl Default for Fields {
    fn default() -> Self {
        let name = |name: &str| name.to_string();
        Self {
            instruction: name("instruction"),
            input: name("input"),
            output: name("output"),
            prompt: name("prompt"),
            completion: name("completion"),
            messages: name("messages"),
        }
    }
}

impl Fields {
    /// The names with `renames` applied, each `field=name in the file`.
    ///
    /// # Errors
    /// An entry of another form or an unknown field.
    pub fn renamed(renames: &[String]) -> Result<Self, String> {
        let mut fields = Self::default();
        for rename in renames {
            let (field, name) = rename
                .split_once('=')
                .ok_or_else(|| format!("'{rename}' is not of the form field=name"))?;
            let slot = match field {
                "instruction" => &mut fields.instruction,
                "input" => &mut fields.input,
                "output" => &mut fields.output,
                "prompt" => &mut fields.prompt,
                "completion" => &mut fields.completion,
                "messages" => &mut fields.messages,
                other => {
                    return Err(format!(
                        "'{other}' in '{rename}' is unknown; choose instruction, input, output, prompt, completion or messages"
                    ));
                }
            };
            *slot = name.to_string();
        }
        Ok(fields)
    }
}

/// The examples of some files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Examples {
    /// In the order of the files.
    pub examples: Vec<Example>,
    /// Left out because their response is empty.
    pub empty: usize,
}

/// The examples of `paths`, one file after the other; those with an empty response are left out and counted.
///
/// # Errors
/// A file that cannot be read, a malformed line, an object of none of the three shapes, nothing to learn from.
pub fn read(paths: &[PathBuf], fields: &Fields) -> Result<Examples, TextError> {
    let mut read = Examples::default();
    for path in paths {
        let before = read.examples.len();
        for record in records::read(path)? {
            match parse(&record, fields)? {
                example if example.is_empty() => read.empty += 1,
                example => read.examples.push(example),
            }
        }
        if read.examples.len() == before {
            let path = Path::new(path).to_path_buf();
            let what = "example whose response is not empty";
            return Err(TextError::Empty { path, what });
        }
    }
    Ok(read)
}

fn parse(record: &Record, fields: &Fields) -> Result<Example, TextError> {
    let has = |name: &String| record.fields.contains_key(name);
    if has(&fields.messages) {
        return chat(record, &fields.messages);
    }
    if has(&fields.prompt) && has(&fields.completion) {
        return Ok(Example::Completion {
            prompt: record.required(&fields.prompt)?,
            completion: record.text(&fields.completion)?.unwrap_or_default(),
        });
    }
    if has(&fields.instruction) && has(&fields.output) {
        return Ok(Example::Instruction {
            instruction: record.required(&fields.instruction)?,
            input: record.text(&fields.input)?.unwrap_or_default(),
            output: record.text(&fields.output)?.unwrap_or_default(),
        });
    }
    let found: Vec<&str> = record.fields.keys().map(String::as_str).collect();
    Err(record.error(format!(
        "found the fields {}; expected {} and {}, {} and {}, or {} (--field renames them)",
        found.join(", "),
        fields.instruction,
        fields.output,
        fields.prompt,
        fields.completion,
        fields.messages
    )))
}

fn chat(record: &Record, name: &str) -> Result<Example, TextError> {
    let turns = match &record.fields[name] {
        Value::Array(turns) => turns,
        other => {
            return Err(record.error(format!(
                "field '{name}' is {}, expected a list of messages",
                kind(other)
            )));
        }
    };
    let mut messages = Vec::with_capacity(turns.len());
    for (index, turn) in turns.iter().enumerate() {
        // {role, content} as in most files, {from, value} as ShareGPT has it.
        let text = |names: [&str; 2]| names.iter().find_map(|name| turn.get(*name)?.as_str());
        match (text(["role", "from"]), text(["content", "value"])) {
            (Some(role), Some(content)) => messages.push(Message {
                role: match role {
                    "human" => "user",
                    "gpt" => "assistant",
                    role => role,
                }
                .to_string(),
                content: content.to_string(),
            }),
            _ => {
                return Err(record.error(format!(
                    "message {} of '{name}' has no 'role' and 'content' that are strings",
                    index + 1
                )));
            }
        }
    }
    // What follows the assistant's last turn is nobody's prompt.
    let last = messages.iter().rposition(|message| message.role == "assistant");
    messages.truncate(last.map_or(0, |last| last + 1));
    Ok(Example::Chat(messages))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str, fields: &Fields) -> Result<Examples, TextError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, text).unwrap();
        read(&[path], fields)
    }

    #[test]
    fn the_three_shapes_and_the_empty_response() {
        let text = r#"{"instruction": "add", "input": "1 2", "output": "3", "answer": 3}
{"prompt": "a", "completion": " b"}
{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}, {"role": "user", "content": "?"}]}
{"instruction": "add", "output": "  "}
{"messages": [{"from": "human", "value": "hi"}]}"#;
        let read = read_text(text, &Fields::default()).unwrap();
        assert_eq!(read.empty, 2);
        assert_eq!(read.examples.len(), 3);
        assert!(matches!(&read.examples[0], Example::Instruction { input, .. } if input == "1 2"));
        assert!(matches!(&read.examples[1], Example::Completion { completion, .. } if completion == " b"));
        assert!(matches!(&read.examples[2], Example::Chat(messages) if messages.len() == 2));
    }

    #[test]
    fn fields_are_renamed() {
        let fields = Fields::renamed(&["instruction=question".into(), "output=answer".into()]).unwrap();
        let read = read_text(r#"{"question": "1 + 1", "answer": 2}"#, &fields).unwrap();
        assert!(matches!(&read.examples[0], Example::Instruction { output, .. } if output == "2"));
        assert!(
            Fields::renamed(&["outputs=answer".into()])
                .unwrap_err()
                .contains("'outputs'")
        );
        assert!(Fields::renamed(&["output".into()]).unwrap_err().contains("field=name"));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let message = |text: &str| read_text(text, &Fields::default()).unwrap_err().to_string();
        assert!(
            message("{\"question\": \"x\"}").contains("a.jsonl:1: found the fields question; expected instruction")
        );
        assert!(message("{\"messages\": [{\"role\": \"user\"}]}").contains("message 1 of 'messages'"));
        assert!(message("{\"prompt\": \"a\", \"completion\": \"\"}").contains("holds no example"));
    }
}
