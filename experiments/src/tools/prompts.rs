//! Files of prompts.

use std::path::Path;

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

/// The prompts in a file: one a line, in a .jsonl file as JSON.
///
/// # Errors
/// A file that cannot be read or has no prompt, a line that is not one.
pub fn from_file(path: &Path) -> Result<Vec<Input>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let is_json = path.extension().is_some_and(|extension| extension == "jsonl");
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let inputs = lines.map(|(index, line)| match is_json {
        true => json_prompt(line).map_err(|e| format!("{}:{}: {e}", path.display(), index + 1)),
        false => Ok(Input::Text(line.to_string())),
    });
    let inputs = inputs.collect::<Result<Vec<_>, String>>()?;
    match inputs.is_empty() {
        true => Err(format!("there is no prompt in {}; write one a line", path.display())),
        false => Ok(inputs),
    }
}

fn json_prompt(line: &str) -> Result<Input, String> {
    const EXPECTED: &str = r#"expected {"prompt": …} or {"messages": [{"role": …, "content": …}, …]}"#;
    let json: Value = serde_json::from_str(line).map_err(|_| EXPECTED)?;
    if let Some(prompt) = json.get("prompt").and_then(Value::as_str) {
        return Ok(Input::Text(prompt.to_string()));
    }
    let is_message = |message: &Value| message.get("role").is_some_and(Value::is_string);
    match serde_json::from_value::<Chat>(json.clone()) {
        Ok(chat) if chat.messages.iter().all(is_message) && json.get("messages").is_some() => {
            match chat.messages.is_empty() {
                true => Err("'messages' is empty; give at least one".into()),
                false => Ok(Input::Chat(chat)),
            }
        }
        _ => Err(EXPECTED.into()),
    }
}
