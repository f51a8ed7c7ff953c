//! The templates that a model's files hold.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::error::ChatError;
use crate::error::ImportError;

/// Templates by name; a lone one is called `default`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatTemplates(BTreeMap<String, String>);

/// The folder of a model's further templates, beside its own one.
pub const FURTHER: &str = "additional_chat_templates";
const DEFAULT: &str = "default";
const WITH_TOOLS: &str = "tool_use";
/// Bytes of a template at most.
pub(super) const LONGEST: usize = 1 << 20;

impl ChatTemplates {
    /// One template.
    pub fn one(source: impl Into<String>) -> Self {
        Self([(DEFAULT.to_string(), source.into())].into())
    }

    /// The files of `folder`, or else `field`, which is tokenizer_config.json's `chat_template`: a text, or several with
    /// their names; or else the file of a processor, chat_template.json.
    ///
    /// # Errors
    /// A file that cannot be read, or is no JSON.
    pub(crate) fn load(folder: &Path, field: Option<&Value>) -> Result<Self, ImportError> {
        let mut named = BTreeMap::new();
        let own = folder.join("chat_template.jinja");
        if own.is_file() {
            named.insert(DEFAULT.to_string(), read(&own)?);
        }
        let more = std::fs::read_dir(folder.join(FURTHER));
        for entry in more.into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.file_stem().and_then(|name| name.to_str());
            if let (Some(name), Some("jinja")) = (name, path.extension().and_then(|extension| extension.to_str())) {
                named.insert(name.to_string(), read(&path)?);
            }
        }
        if !named.is_empty() {
            return Ok(Self(named));
        }
        let given = Self::of(field);
        let processor = folder.join("chat_template.json");
        if !given.is_empty() || !processor.is_file() {
            return Ok(given);
        }
        let json: Value = serde_json::from_str(&read(&processor)?).map_err(|e| ImportError::Config {
            path: processor.clone(),
            message: format!("no JSON ({e})"),
        })?;
        let templates = Self::of(json.get("chat_template"));
        match templates.is_empty() {
            false => Ok(templates),
            true => Err(ImportError::Config {
                path: processor,
                message: "no text or named texts under chat_template; mend or remove it".into(),
            }),
        }
    }

    /// A text, or several with their names.
    fn of(field: Option<&Value>) -> Self {
        match field {
            Some(Value::String(text)) => Self::one(text.clone()),
            Some(Value::Array(list)) => {
                let text = |entry: &Value, field: &str| Some(entry.get(field)?.as_str()?.to_string());
                Self(
                    list.iter()
                        .filter_map(|entry| Some((text(entry, "name")?, text(entry, "template")?)))
                        .collect(),
                )
            }
            Some(Value::Object(named)) => {
                let text = |(name, text): (&String, &Value)| Some((name.clone(), text.as_str()?.to_string()));
                Self(named.iter().filter_map(text).collect())
            }
            _ => Self::default(),
        }
    }

    /// True if there is no template.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Name of the template for a conversation, with tools or without.
    pub(super) fn choose(&self, tools: bool) -> Result<String, ChatError> {
        let wanted = [WITH_TOOLS, DEFAULT];
        let mut wanted = wanted.into_iter().skip(usize::from(!tools));
        match wanted.find(|name| self.0.contains_key(*name)) {
            Some(name) => Ok(name.to_string()),
            None if self.is_empty() => Err(ChatError::NoTemplate),
            None => {
                let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
                Err(ChatError::NoDefault(names.join(", ")))
            }
        }
    }

    /// Text of the template `name`, empty if there is none.
    pub(super) fn source(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

fn read(path: &Path) -> Result<String, ImportError> {
    let error = |message: String| ImportError::Config {
        path: path.to_path_buf(),
        message,
    };
    files::read_text(path, LONGEST as u64).map_err(|e| error(format!("cannot read it ({e})")))
}
