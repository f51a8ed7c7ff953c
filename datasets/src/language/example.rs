//! Training examples: instruction/input/output, prompt/completion, or chat messages.

use std::path::PathBuf;

use serde_json::Value;

use crate::language::record::{Place, Record, kind};
use crate::language::records;
use crate::language::{Message, Template, TextError};

/// A conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chat {
    /// Its turns; the last one is the assistant's.
    pub messages: Vec<Message>,
    /// The tools that the assistant may call, as the model's template reads them.
    pub tools: Vec<Value>,
    /// Instruction and input of the last question, if the file gave them with a system message or earlier turns: templates
    /// that are not the model's own have a place for each.
    pub instruction: Option<(String, String)>,
}

impl Chat {
    /// Prompt and response in a template that is not the model's own; `None` for a conversation, which only the model's own
    /// renders.
    pub fn in_template(&self, template: Template) -> Option<(String, String)> {
        let (instruction, input) = self.instruction.as_ref()?;
        let [earlier @ .., _, answer] = &self.messages[..] else {
            return None;
        };
        let (system, turns) = match earlier {
            [first, turns @ ..] if first.role == "system" => (Some(first.content.as_str()), turns),
            turns => (None, turns),
        };
        let turns = turns.as_chunks::<2>().0;
        let turns = turns
            .iter()
            .map(|[asked, answered]| [asked, answered].map(|message| message.content.as_str()));
        let prompt = template.after(system, turns, &template.prompt(instruction, input));
        Some((prompt, answer.content.clone()))
    }
}

/// A training example. Only the response (output, completion, the assistant's turns) is trained on.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    /// A task described in words, its input (often empty), and the expected output.
    Instruction {
        /// The task.
        instruction: String,
        /// The input of the task.
        input: String,
        /// The response.
        output: String,
    },
    /// A text and its continuation.
    Completion {
        /// The text.
        prompt: String,
        /// The response.
        completion: String,
    },
    /// A conversation whose last turn is the assistant's.
    Chat(Chat),
}

impl Example {
    /// True if it has nothing to train on.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Instruction { output, .. } => output.trim().is_empty(),
            Self::Completion { completion, .. } => completion.trim().is_empty(),
            Self::Chat(chat) => {
                let learned = |message: &&Message| message.is_of_assistant() && message.learned;
                let says =
                    |message: &Message| !message.content.trim().is_empty() || message.fields.contains_key("tool_calls");
                !chat.messages.iter().rfind(learned).is_some_and(says)
            }
        }
    }
}

/// Names of the fields in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields {
    /// The task, described in words.
    pub instruction: String,
    /// The input of the task; may be absent.
    pub input: String,
    /// The response to an instruction.
    pub output: String,
    /// A text, or the messages before the completion.
    pub prompt: String,
    /// The continuation.
    pub completion: String,
    /// A conversation; `conversations` if a file lacks this field.
    pub messages: String,
    /// The system message; may be absent.
    pub system: String,
    /// Turns before an instruction, as pairs of question and answer; may be absent.
    pub history: String,
    /// The tools of a conversation; may be absent.
    pub tools: String,
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
            messages: name(MESSAGES[0]),
            system: name("system"),
            history: name("history"),
            tools: name("tools"),
        }
    }
}

/// Usual field names of a conversation.
const MESSAGES: [&str; 2] = ["messages", "conversations"];

impl Fields {
    /// The names after applying `renames`, each of the form `field=name in the file`.
    ///
    /// # Errors
    /// A malformed entry or an unknown field.
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
                "system" => &mut fields.system,
                "history" => &mut fields.history,
                "tools" => &mut fields.tools,
                other => {
                    return Err(format!(
                        "'{other}' in '{rename}' is unknown; choose instruction, input, output, prompt, completion, messages, \
                         system, history or tools"
                    ));
                }
            };
            *slot = name.to_string();
        }
        Ok(fields)
    }

    /// All names under which a file may have something to read.
    pub(super) fn names(&self) -> Vec<&str> {
        let named = [
            &self.instruction,
            &self.input,
            &self.output,
            &self.prompt,
            &self.completion,
            &self.messages,
            &self.system,
            &self.history,
            &self.tools,
        ];
        named.into_iter().map(String::as_str).chain([MESSAGES[1]]).collect()
    }
}

/// The examples of some files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Examples {
    /// In the order of the files.
    pub examples: Vec<Example>,
    /// Left out because their response is empty.
    pub empty: usize,
    /// Left out because they cannot be read.
    pub bad: usize,
    /// Reasons for the first few of those, each with file and line.
    pub reasons: Vec<String>,
    /// The files that examples were read from.
    files: Vec<PathBuf>,
    /// File and position of each example that was read from a file.
    places: Vec<(usize, Place)>,
}

/// Number of reasons that are kept for examples that cannot be read.
const MOST_REASONS: usize = 5;

impl From<Vec<Example>> for Examples {
    fn from(examples: Vec<Example>) -> Self {
        Self {
            examples,
            ..Self::default()
        }
    }
}

impl Examples {
    /// Counts an example that cannot be read.
    pub(super) fn leave_out(&mut self, reason: &TextError) {
        self.bad += 1;
        if self.reasons.len() < MOST_REASONS {
            self.reasons.push(reason.to_string());
        }
    }

    /// `message` about the example with that index, with its file and line, or with its number if it is from no file.
    pub fn about(&self, index: usize, message: String) -> String {
        match self.places.get(index) {
            Some((file, place)) => place.error(&self.files[*file], message).to_string(),
            None => format!("example {}: {message}", index + 1),
        }
    }

    /// A summary for the user of the examples that cannot be read; `None` if there are none.
    pub fn describe_bad(&self) -> Option<String> {
        let more = match self.bad - self.reasons.len().min(self.bad) {
            0 => String::new(),
            more => format!("\n  and {more} more"),
        };
        let count = match self.bad {
            0 => return None,
            1 => "1 example is left out:".to_string(),
            several => format!("{several} examples are left out:"),
        };
        Some(format!("{count}\n  {}{more}", self.reasons.join("\n  ")))
    }
}

/// The examples in `paths`, file by file; those with an empty response and those that cannot be read are left out and
/// counted.
///
/// # Errors
/// A file that cannot be read or has no usable example, with the reason for the first example, if there is one.
pub fn read(paths: &[PathBuf], fields: &Fields) -> Result<Examples, TextError> {
    read_with(paths, &fields.names(), |record| parse(record, fields))
}

/// Same as [`read`], but `parse` makes each example, of the fields in `wanted`.
pub(super) fn read_with(
    paths: &[PathBuf],
    wanted: &[&str],
    parse: impl Fn(&Record) -> Result<Example, TextError>,
) -> Result<Examples, TextError> {
    let mut read = Examples::default();
    for path in paths {
        let (before, empty, bad) = (read.examples.len(), read.empty, read.bad);
        let mut first_bad = None;
        for record in records::read_each(path, wanted)? {
            let parsed = record.and_then(|record| Ok((parse(&record)?, record.place())));
            match parsed {
                Ok((example, _)) if example.is_empty() => read.empty += 1,
                Ok((example, place)) => {
                    read.examples.push(example);
                    read.places.push((read.files.len(), place));
                }
                Err(error) => {
                    read.leave_out(&error);
                    first_bad.get_or_insert(error);
                }
            }
        }
        if read.examples.len() == before {
            let (path, what) = (path.clone(), "example whose response is not empty");
            // What is wrong with most of them.
            first_bad = first_bad.filter(|_| read.bad - bad >= read.empty - empty);
            return Err(first_bad.unwrap_or(TextError::Empty { path, what }));
        }
        read.files.push(path.clone());
    }
    Ok(read)
}

pub(super) fn parse(record: &Record, fields: &Fields) -> Result<Example, TextError> {
    let named = |name: &String| record.value(name).is_some();
    let messages = match fields.messages == MESSAGES[0] && !named(&fields.messages) {
        true => MESSAGES[1],
        false => fields.messages.as_str(),
    };
    if record.value(messages).is_some() {
        let turns = turns(record, messages)?;
        return chat(record, fields, turns).map(Example::Chat);
    }
    if named(&fields.prompt) && record.has(&fields.completion) {
        let is_list = |name: &String| matches!(record.value(name), Some(Value::Array(_)));
        if is_list(&fields.prompt) || is_list(&fields.completion) {
            return conversational(record, fields);
        }
        return Ok(Example::Completion {
            prompt: record.required(&fields.prompt)?,
            completion: record.text(&fields.completion)?.unwrap_or_default(),
        });
    }
    let has = |name: &String| record.has(name);
    if has(&fields.instruction) && has(&fields.output) {
        return instruction(record, fields);
    }
    let mut usual = [&fields.messages, &fields.prompt].into_iter();
    if let Some(name) = usual.find(|name| has(name) && !named(name)) {
        return Err(record.error(format!("field '{name}' is null")));
    }
    let found = record.names();
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

/// A task described in words; a conversation if the record has a system message or earlier turns.
fn instruction(record: &Record, fields: &Fields) -> Result<Example, TextError> {
    let instruction = record.required(&fields.instruction)?;
    let input = record.text(&fields.input)?.unwrap_or_default();
    let output = record.text(&fields.output)?.unwrap_or_default();
    let mut turns = Vec::new();
    if let Some(history) = record.value(&fields.history) {
        let pairs = history.as_array().map(|pairs| {
            let pair = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
                Some([Value::String(question), Value::String(answer)]) => {
                    Some([Message::user(question), Message::new("assistant", answer)])
                }
                _ => None,
            };
            pairs.iter().map(pair).collect::<Option<Vec<_>>>()
        });
        let Some(Some(pairs)) = pairs else {
            let message = format!(
                "field '{}' is no list of pairs of a question and an answer",
                fields.history
            );
            return Err(record.error(message));
        };
        turns.extend(pairs.into_iter().flatten());
    }
    let system = record.text(&fields.system)?.unwrap_or_default();
    if turns.is_empty() && system.trim().is_empty() {
        return Ok(Example::Instruction {
            instruction,
            input,
            output,
        });
    }
    let asked = Template::Chat.prompt(&instruction, &input);
    turns.extend([Message::user(asked), Message::new("assistant", output)]);
    let Chat { messages, tools, .. } = chat(record, fields, turns)?;
    Ok(Example::Chat(Chat {
        messages,
        tools,
        instruction: Some((instruction, input)),
    }))
}

/// TRL's conversational prompt and completion: only the completion is trained on.
fn conversational(record: &Record, fields: &Fields) -> Result<Example, TextError> {
    let part = |name: &str, role: &str| match record.value(name) {
        Some(Value::String(text)) => Ok(vec![Message::new(role, text)]),
        Some(_) => turns(record, name),
        None => Ok(Vec::new()),
    };
    let mut turns = part(&fields.prompt, "user")?;
    turns.iter_mut().for_each(|message| message.learned = false);
    turns.extend(part(&fields.completion, "assistant")?);
    chat(record, fields, turns).map(Example::Chat)
}

/// The messages in field `name`, given as a list or as JSON text.
fn turns(record: &Record, name: &str) -> Result<Vec<Message>, TextError> {
    let turns = list(record, name, "messages")?;
    let turns = turns.iter().enumerate();
    turns
        .filter(|(_, turn)| !Message::is_no_system(turn))
        .map(|(index, turn)| {
            Message::from_json(turn)
                .map_err(|message| record.error(format!("message {} of '{name}' {message}", index + 1)))
        })
        .collect()
}

/// The list in field `name`, which tables may store as text; empty if absent.
fn list(record: &Record, name: &str, of: &str) -> Result<Vec<Value>, TextError> {
    let other = |found: &str| record.error(format!("field '{name}' is {found}, expected a list of {of}"));
    match record.value(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items.clone()),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(Vec::new()),
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|_| other("a string that is none")),
        Some(value) => Err(other(kind(value))),
    }
}

/// The conversation of `messages`, with the record's system message and tools.
fn chat(record: &Record, fields: &Fields, mut messages: Vec<Message>) -> Result<Chat, TextError> {
    let system = record.text(&fields.system)?.unwrap_or_default();
    if !system.trim().is_empty() {
        match messages.first().filter(|first| first.role == "system") {
            None => messages.insert(0, Message::new("system", system)),
            Some(first) if first.content == system => {}
            Some(_) => {
                let message = format!(
                    "field '{}' and the first message are two system messages",
                    fields.system
                );
                return Err(record.error(message));
            }
        }
    }
    // Turns after the assistant's last one do not prompt anything.
    let last = messages.iter().rposition(Message::is_of_assistant);
    messages.truncate(last.map_or(0, |last| last + 1));
    let tools = list(record, &fields.tools, "tools")?;
    Ok(Chat {
        messages,
        tools,
        instruction: None,
    })
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
        assert!(matches!(&read.examples[2], Example::Chat(chat) if chat.messages.len() == 2));
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

    fn chat_of(text: &str) -> Chat {
        match read_text(text, &Fields::default()).unwrap().examples.remove(0) {
            Example::Chat(chat) => chat,
            other => panic!("{other:?}"),
        }
    }

    fn said(chat: &Chat) -> Vec<(&str, &str, bool)> {
        let messages = chat.messages.iter();
        messages
            .map(|message| (message.role.as_str(), message.content.as_str(), message.learned))
            .collect()
    }

    #[test]
    fn null_columns_of_joined_tables_are_absent() {
        let text = r#"{"messages": null, "instruction": null, "output": null, "prompt": "a", "completion": "b"}
{"messages": null, "instruction": "c", "input": null, "output": "d", "prompt": null, "completion": null, "system": null}"#;
        let read = read_text(text, &Fields::default()).unwrap();
        assert!(matches!(&read.examples[0], Example::Completion { prompt, .. } if prompt == "a"));
        assert!(matches!(&read.examples[1], Example::Instruction { instruction, .. } if instruction == "c"));
        for (text, field) in [
            (r#"{"instruction": null, "output": "y"}"#, "instruction"),
            (r#"{"messages": null}"#, "messages"),
            (r#"{"prompt": null, "completion": "x"}"#, "prompt"),
        ] {
            let message = read_text(text, &Fields::default()).unwrap_err().to_string();
            assert!(
                message.ends_with(&format!("a.jsonl:1: field '{field}' is null")),
                "{message}"
            );
        }
    }

    #[test]
    fn a_system_message_of_null_is_none() {
        let chat = chat_of(
            r#"{"conversations": [{"from": "system", "value": null}, {"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}"#,
        );
        assert_eq!(chat.messages.len(), 2);
        assert_eq!(chat.messages[0].role, "user");
    }

    #[test]
    fn system_history_and_tools_become_the_conversation() {
        let chat = chat_of(
            r#"{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}], "system": "be nice",
 "tools": "[{\"name\": \"f\"}]"}"#
                .replace('\n', "")
                .as_str(),
        );
        assert_eq!(
            said(&chat),
            [
                ("system", "be nice", true),
                ("user", "hi", true),
                ("assistant", "ho", true)
            ]
        );
        assert_eq!(chat.tools, [serde_json::json!({ "name": "f" })]);
        assert_eq!(chat.in_template(Template::Plain), None);
        let chat = chat_of(
            r#"{"instruction": "and 2?", "input": "x", "output": "4", "system": "", "history": [["1 + 1?", "2"]]}"#,
        );
        let expected = [("user", "1 + 1?", true), ("assistant", "2", true)];
        assert_eq!(said(&chat)[..2], expected);
        assert_eq!(
            said(&chat)[2..],
            [("user", "and 2?\n\nx", true), ("assistant", "4", true)]
        );
        let (prompt, response) = chat.in_template(Template::Plain).unwrap();
        assert_eq!((prompt.as_str(), response.as_str()), ("1 + 1?\n2\n\nand 2?\nx\n", "4"));
        let told = chat_of(r#"{"instruction": "add", "output": "3", "system": "be nice"}"#);
        let (prompt, _) = told.in_template(Template::Alpaca).unwrap();
        assert_eq!(prompt, format!("be nice\n\n{}", Template::Alpaca.prompt("add", "")));
        let twice = r#"{"messages": [{"role": "system", "content": "a"}, {"role": "assistant", "content": "b"}], "system": "c"}"#;
        let message = read_text(twice, &Fields::default()).unwrap_err().to_string();
        assert!(message.contains("two system messages"), "{message}");
    }

    #[test]
    fn of_a_conversational_prompt_and_completion_only_the_completion_is_learned() {
        let chat = chat_of(
            r#"{"prompt": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}, {"role": "user", "content": "?"}], "completion": [{"role": "assistant", "content": "!"}]}"#,
        );
        let learned: Vec<bool> = said(&chat).iter().map(|(.., learned)| *learned).collect();
        assert_eq!(learned, [false, false, false, true]);
        let weights = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d", "weight": 1}]}"#;
        assert!(!said(&chat_of(weights))[1].2 && said(&chat_of(weights))[3].2);
        let none = weights.replace("\"weight\": 1", "\"weight\": 0");
        assert!(
            read_text(&none, &Fields::default())
                .unwrap_err()
                .to_string()
                .contains("holds no example")
        );
    }

    #[test]
    fn roles_may_begin_with_a_capital() {
        let text = r#"{"conversations": [{"from": "Human", "value": "a"}, {"from": "GPT", "value": "b"}]}"#;
        let chat = chat_of(text);
        let told = said(&chat);
        assert_eq!((told[0].0, told[1].0), ("user", "assistant"));
    }

    #[test]
    fn without_any_example_what_is_wrong_with_most_is_said() {
        let silent = r#"{"prompt": "a", "completion": ""}"#;
        let message = |text: String| read_text(&text, &Fields::default()).unwrap_err().to_string();
        assert!(message(format!("{silent}\n3\n{silent}\n")).contains("response is not empty"));
        assert!(message(format!("3\n4\n{silent}\n")).contains("a.jsonl:1: found a number"));
    }

    #[test]
    fn one_bad_example_ends_nothing_and_is_named() {
        let bad = "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": {}, \"completion\": \"b\"}\n{\"a\": \n[]\n";
        let read = read_text(bad, &Fields::default()).unwrap();
        assert_eq!((read.examples.len(), read.bad, read.reasons.len()), (1, 3, 3));
        let told = read.describe_bad().unwrap();
        for part in [
            "3 examples are left out:",
            "a.jsonl:2: field 'prompt' is an object",
            "a.jsonl:3: malformed JSON",
            "a.jsonl:4: found a list, expected an object",
        ] {
            assert!(told.contains(part), "{told}");
        }
        let many = bad.to_string() + &"3\n".repeat(40);
        let read = read_text(&many, &Fields::default()).unwrap();
        assert_eq!((read.bad, read.reasons.len()), (43, 5));
        assert!(read.describe_bad().unwrap().ends_with("and 38 more"));
        assert_eq!(Examples::default().describe_bad(), None);
    }
}
