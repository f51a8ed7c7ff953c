//! A turn of a conversation, in any of the formats found in files.

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::language::records::kind;

/// A turn of a conversation. Chat templates see it (serialized) as the object in the file: role, content and any other
/// fields (`tool_calls`, `name`, `reasoning_content`, …), without those that are null.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// system, user, assistant or tool, or another role that the model's template knows.
    pub role: String,
    /// The text; a list of text parts is joined; empty if there is none.
    pub content: String,
    /// Whether an assistant turn is trained on (not if OpenAI's `weight` is 0).
    pub learned: bool,
    /// The file's other fields.
    pub fields: Map<String, Value>,
    /// True if the content is null in the file.
    null: bool,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            learned: true,
            fields: Map::new(),
            null: false,
        }
    }

    /// A message of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// True for the assistant's turns.
    pub fn is_of_assistant(&self) -> bool {
        self.role == "assistant"
    }

    /// True for a system message without a text, which is as if it were not there.
    pub(super) fn is_no_system(value: &Value) -> bool {
        let field = |names: [&str; 2]| names.into_iter().find_map(|name| value.get(name));
        let role = field(["role", "from"]).and_then(Value::as_str);
        role.is_some_and(|role| usual(role) == "system") && field(["content", "value"]).is_some_and(Value::is_null)
    }

    /// The message in a JSON object: `{role, content}` as in most files, or `{from, value}` as in ShareGPT, with its
    /// role names.
    ///
    /// # Errors
    /// A value that is not an object, has no role or no text as content, or has a weight other than 0 and 1.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let Value::Object(object) = value else {
            return Err(format!(
                "is {}, expected an object with 'role' and 'content'",
                kind(value)
            ));
        };
        let found = |names: [&str; 2]| names.into_iter().find_map(|name| object.get_key_value(name));
        let role = found(["role", "from"]).and_then(|(_, role)| role.as_str());
        let role = role.ok_or("has no 'role' that is a string")?;
        let content = found(["content", "value"]);
        let mut message = Self::new(usual(role), "");
        for (name, value) in object {
            if !matches!(name.as_str(), "role" | "from" | "content" | "value" | "weight") && !value.is_null() {
                message.fields.insert(name.clone(), parsed(name, value));
            }
        }
        let calls = message.fields.contains_key("tool_calls");
        match content.map(|(_, content)| content) {
            Some(Value::String(text)) => message.content.clone_from(text),
            Some(Value::Array(parts)) => message.content = joined(parts)?,
            Some(Value::Null) | None if calls => message.null = true,
            Some(Value::Null) => return Err("has null as 'content' and no 'tool_calls'".into()),
            None => return Err("has no 'content'".into()),
            Some(other) => return Err(format!("has {} as 'content', expected a string", kind(other))),
        }
        if role == "function_call" {
            // ShareGPT's tool call, with name and arguments as JSON text.
            let call: Value = serde_json::from_str(&message.content)
                .map_err(|e| format!("is a function_call whose value is no JSON ({e})"))?;
            let calls = if call.is_array() { call } else { json!([call]) };
            let calls = calls.as_array().into_iter().flatten();
            let calls: Vec<Value> = calls
                .map(|call| json!({ "type": "function", "function": call }))
                .collect();
            message.fields.insert("tool_calls".into(), calls.into());
            (message.content, message.null) = (String::new(), true);
        }
        message.learned = match object.get("weight").filter(|weight| !weight.is_null()) {
            None => true,
            Some(weight) => match weight.as_f64() {
                Some(weight) if weight == 0.0 || weight == 1.0 => weight == 1.0,
                _ => return Err(format!("has a 'weight' of {weight}; 0 (not learned) and 1 are read")),
            },
        };
        Ok(message)
    }
}

/// The chat templates' name for a role that has a different name in ShareGPT-like files, or begins with a capital.
fn usual(role: &str) -> &str {
    match role.to_ascii_lowercase().as_str() {
        "human" | "user" => "user",
        "gpt" | "chatgpt" | "bing" | "bard" | "bot" | "model" | "function_call" | "assistant" => "assistant",
        "observation" | "function_response" | "function" | "tool" => "tool",
        "system" => "system",
        _ => role,
    }
}

/// Tables store lists of calls as text.
fn parsed(name: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if name == "tool_calls" => serde_json::from_str(text).unwrap_or(value.clone()),
        value => value.clone(),
    }
}

/// The concatenated text of content parts.
fn joined(parts: &[Value]) -> Result<String, String> {
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        let kind = part.get("type").and_then(Value::as_str);
        match (part, kind, part.get("text").and_then(Value::as_str)) {
            (Value::String(part), ..) => text += part,
            (_, Some("text") | None, Some(part)) => text += part,
            (_, Some(kind), _) if kind != "text" => {
                return Err(format!("has a part {} of type '{kind}'; only text is read", index + 1));
            }
            _ => return Err(format!("has a part {} without 'text'", index + 1)),
        }
    }
    Ok(text)
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2 + self.fields.len()))?;
        map.serialize_entry("role", &self.role)?;
        match self.null {
            true => map.serialize_entry("content", &Value::Null)?,
            false => map.serialize_entry("content", &self.content)?,
        }
        for (name, value) in &self.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_json(&value).map_err(|message| D::Error::custom(format!("a message {message}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<Message, String> {
        Message::from_json(&value)
    }

    #[test]
    fn a_template_reads_the_object_of_the_file() {
        let call = json!({ "type": "function", "function": { "name": "f", "arguments": {} } });
        let given = json!({ "role": "assistant", "content": null, "tool_calls": [call], "name": null });
        let message = read(given).unwrap();
        let expected = json!({ "role": "assistant", "content": null, "tool_calls": [call] });
        assert_eq!(serde_json::to_value(&message).unwrap(), expected);
        assert_eq!(serde_json::from_value::<Message>(expected).unwrap(), message);
        let plain = json!({ "role": "tool", "content": "3", "tool_call_id": "a" });
        assert_eq!(serde_json::to_value(read(plain.clone()).unwrap()).unwrap(), plain);
    }

    #[test]
    fn roles_parts_and_weights_in_every_spelling() {
        let roles = [
            ("human", "user"),
            ("gpt", "assistant"),
            ("observation", "tool"),
            ("ipython", "ipython"),
        ];
        for (given, expected) in roles {
            assert_eq!(read(json!({ "from": given, "value": "x" })).unwrap().role, expected);
        }
        let parts = json!([{ "type": "text", "text": "a" }, "b", { "text": "c" }]);
        assert_eq!(
            read(json!({ "role": "user", "content": parts })).unwrap().content,
            "abc"
        );
        let weighted = |weight: Value| read(json!({ "role": "assistant", "content": "x", "weight": weight }));
        assert!(!weighted(json!(0)).unwrap().learned && weighted(json!(1.0)).unwrap().learned);
        assert!(weighted(Value::Null).unwrap().learned);
        assert!(weighted(json!(0.5)).unwrap_err().contains("0.5"));
        let called = read(json!({ "from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {}}" })).unwrap();
        assert_eq!(called.fields["tool_calls"][0]["function"]["name"], "f");
        assert_eq!((called.role.as_str(), called.content.as_str()), ("assistant", ""));
    }

    #[test]
    fn what_is_no_message_is_named() {
        for (value, part) in [
            (json!("hi"), "is a string, expected an object"),
            (json!({ "content": "x" }), "no 'role'"),
            (json!({ "role": "user" }), "no 'content'"),
            (json!({ "role": "user", "content": null }), "null as 'content'"),
            (json!({ "role": "user", "content": 3 }), "a number as 'content'"),
            (
                json!({ "role": "user", "content": [{ "type": "image_url" }] }),
                "part 1 of type 'image_url'; only text",
            ),
            (json!({ "from": "function_call", "value": "f()" }), "no JSON"),
        ] {
            let message = read(value).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }
}
