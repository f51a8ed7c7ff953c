//! Turns questions and conversations into prompts.

use backbones::lm::LmTokenizer;
use backbones::lm::chat_template::{ChatError, Conversation, prompt};
use datasets::language::Template;
use serde_json::json;

/// Turns questions into prompts of the form that the model was trained on.
pub struct Asker {
    template: Template,
    tokenizer: Option<LmTokenizer>,
}

impl Asker {
    /// For `template`; the model's own chat template needs its `tokenizer`.
    pub fn new(template: Template, tokenizer: Option<LmTokenizer>) -> Self {
        Self { template, tokenizer }
    }

    /// The prompt for the answer to the last of `asked`; `answered` has the answers to the turns before it.
    ///
    /// # Errors
    /// A model without a chat template, or one that is malformed.
    pub fn prompt(&self, asked: &[String], answered: &[&str]) -> Result<String, String> {
        match (&self.template, &self.tokenizer) {
            (Template::Chat, Some(tokenizer)) => chat(tokenizer, asked, answered),
            (template, _) => {
                let turns = asked.iter().enumerate().map(|(at, asked)| {
                    let answer = answered.get(at).map_or(String::new(), |answer| format!("{answer}\n\n"));
                    template.prompt(asked, "") + &answer
                });
                Ok(turns.collect())
            }
        }
    }
}

fn chat(tokenizer: &LmTokenizer, asked: &[String], answered: &[&str]) -> Result<String, String> {
    let mut messages = Vec::new();
    for (at, asked) in asked.iter().enumerate() {
        messages.push(json!({ "role": "user", "content": asked }));
        if let Some(answer) = answered.get(at) {
            messages.push(json!({ "role": "assistant", "content": answer }));
        }
    }
    let conversation = Conversation {
        messages: &messages,
        ..Conversation::default()
    };
    let text = prompt(tokenizer, &conversation, true).map_err(|error| match error {
        ChatError::NoTemplate => format!("{error}; choose another --template, or another model"),
        other => other.to_string(),
    })?;
    // The tokenizer prepends these tokens to every text; the template would prepend them a second time.
    let encoded = tokenizer.encoded("", true)?;
    let first = tokenizer.decode(&encoded.ids[..encoded.before], false)?;
    Ok(text.strip_prefix(&first).map_or(text.clone(), String::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_turn_stands_after_the_first_answer() {
        let asker = Asker::new(Template::Alpaca, None);
        let turns = ["One?".to_string(), "Two?".to_string()];
        let prompt = asker.prompt(&turns, &["1."]).unwrap();
        assert!(
            prompt.contains("### Response:\n1.\n\nBelow is an instruction"),
            "{prompt}"
        );
        assert!(prompt.ends_with("Two?\n\n### Response:\n"));
    }
}
