//! Files of prompts.

use std::path::Path;

use datasets::language::TextError;
use datasets::language::records::{self, Record};
use datasets::text_file;
use serde_json::{Map, Value};

/// A prompt as it was given.
pub enum Input {
    /// Plain text.
    Text(String),
    /// A conversation.
    Chat(Chat),
}

/// A conversation, in the form that chat templates expect.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub struct Chat {
    /// Its messages.
    pub messages: Vec<Value>,
    /// Tools that the model may call.
    pub tools: Option<Vec<Value>>,
    /// Documents that it may read.
    pub documents: Option<Vec<Value>>,
    /// Further variables of the template.
    pub chat_template_kwargs: Option<Map<String, Value>>,
}

/// The prompts in a file: one a line of a text, or one a record of a .jsonl, .json, .csv, .tsv or .parquet file.
///
/// # Errors
/// A file that cannot be read or has no prompt, a record that is not one.
pub fn from_file(path: &Path) -> Result<Vec<Input>, String> {
    let inputs = match has_records(path) {
        true => of_records(path).map_err(|e| e.to_string())?,
        false => {
            let text = text_file::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            lines.map(|line| Input::Text(line.to_string())).collect()
        }
    };
    match inputs.is_empty() {
        true => Err(format!("there is no prompt in {}; write one per line", path.display())),
        false => Ok(inputs),
    }
}

/// True for a file of records, by its name.
fn has_records(path: &Path) -> bool {
    let extension = |path: &Path| path.extension().unwrap_or_default().to_ascii_lowercase();
    let extension = match extension(path) {
        gz if gz == "gz" => extension(&path.with_extension("")),
        extension => extension,
    };
    ["jsonl", "json", "csv", "tsv", "parquet"]
        .iter()
        .any(|known| extension == *known)
}

fn of_records(path: &Path) -> Result<Vec<Input>, TextError> {
    match records::read(path) {
        Ok(records) => records.iter().map(of_record).collect(),
        Err(TextError::Empty { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn of_record(record: &Record) -> Result<Input, TextError> {
    const EXPECTED: &str = r#"expected {"prompt": …} or {"messages": [{"role": …, "content": …}, …]}"#;
    if let Some(Value::String(prompt)) = record.value("prompt") {
        return Ok(Input::Text(prompt.clone()));
    }
    let mut fields = record.fields.clone();
    // A table has lists and objects as JSON text.
    for value in fields.values_mut() {
        if let Value::String(text) = value
            && let Ok(found @ (Value::Array(_) | Value::Object(_))) = serde_json::from_str(text)
        {
            *value = found;
        }
    }
    let is_message = |message: &Value| message.get("role").is_some_and(Value::is_string);
    match serde_json::from_value::<Chat>(Value::Object(fields)) {
        Ok(chat) if chat.messages.iter().all(is_message) && record.value("messages").is_some() => {
            match chat.messages.is_empty() {
                true => Err(record.error("'messages' is empty; give at least one".into())),
                false => Ok(Input::Chat(chat)),
            }
        }
        _ => Err(record.error(EXPECTED.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read from a file of that name: texts, or the number of messages.
    fn read(name: &str, content: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let told = |input: Input| match input {
            Input::Text(text) => text,
            Input::Chat(chat) => format!(
                "{} messages, {} tools",
                chat.messages.len(),
                chat.tools.map_or(0, |t| t.len())
            ),
        };
        Ok(from_file(&path)?.into_iter().map(told).collect())
    }

    #[test]
    fn every_kind_of_file_gives_its_prompts() {
        let expected = ["the cat", "2, 3"];
        assert_eq!(read("a.txt", "\u{feff}the cat\n\n2, 3\n").unwrap(), expected);
        let lines = "{\"prompt\": \"the cat\"}\n{\"prompt\": \"2, 3\"}\n";
        assert_eq!(read("a.jsonl", &format!("\u{feff}{lines}")).unwrap(), expected);
        let array = "[\n{\"prompt\": \"the cat\"},\n{\"prompt\": \"2, 3\"}]\n";
        assert_eq!(read("a.json", array).unwrap(), expected);
        assert_eq!(read("a.csv", "id,prompt\n1,the cat\n2,\"2, 3\"\n").unwrap(), expected);
        assert_eq!(read("a.TSV", "prompt\tid\nthe cat\t1\n2, 3\t2\n").unwrap(), expected);
        let cells = r#""[{""role"": ""user"", ""content"": ""hi""}]","[{}, {}]""#;
        let table = format!("messages,tools\n{cells}\n");
        assert_eq!(read("a.csv", &table).unwrap(), ["1 messages, 2 tools"]);
    }

    #[test]
    fn what_is_no_prompt_is_named() {
        for (name, content, part) in [
            ("a.csv", "text,id\nthe cat,1\n", "a.csv:2: expected {\"prompt\""),
            ("a.json", "[{\"messages\": []}]", "'messages' is empty"),
            (
                "a.jsonl",
                "{\"messages\": [{\"content\": \"hi\"}]}\n",
                "a.jsonl:1: expected",
            ),
            ("a.json", "[\"the cat\"]", "expected an object"),
            ("a.jsonl", "\n", "there is no prompt in"),
            ("a.txt", "\u{feff}\n", "there is no prompt in"),
        ] {
            let message = read(name, content).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }
}
