//! Prompt templates of the code released with the WeGeFT paper (arXiv 2312.00700).

use serde::{Deserialize, Serialize};

/// How an instruction becomes a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Template {
    /// Stanford Alpaca's, with an input section only if there is an input; used for Math10k.
    #[default]
    Alpaca,
    /// The instruction followed by a line break; used for the commonsense suite.
    Plain,
    /// The model's own chat template, with the instruction as the user's turn.
    Chat,
}

/// The line after which Alpaca's response starts.
pub const ALPACA_MARKER: &str = "### Response:";

impl Template {
    /// The template of that name.
    ///
    /// # Errors
    /// An unknown name.
    pub fn named(name: &str) -> Result<Self, String> {
        match name {
            "alpaca" => Ok(Self::Alpaca),
            "plain" => Ok(Self::Plain),
            "chat" => Ok(Self::Chat),
            other => Err(format!("template '{other}' is unknown; choose alpaca, plain or chat")),
        }
    }

    /// The text before the response. For [`Template::Chat`], it is the user's turn, which the model's own template then
    /// wraps.
    pub fn prompt(self, instruction: &str, input: &str) -> String {
        const TASK: &str = "Below is an instruction that describes a task";
        const REQUEST: &str = "Write a response that appropriately completes the request.";
        match (self, input.is_empty()) {
            (Self::Alpaca, true) => {
                format!("{TASK}. {REQUEST}\n\n### Instruction:\n{instruction}\n\n{ALPACA_MARKER}\n")
            }
            (Self::Alpaca, false) => format!(
                "{TASK}, paired with an input that provides further context. {REQUEST}\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n{ALPACA_MARKER}\n"
            ),
            (Self::Plain, true) => format!("{instruction}\n"),
            (Self::Plain, false) => format!("{instruction}\n{input}\n"),
            (Self::Chat, true) => instruction.to_string(),
            (Self::Chat, false) => format!("{instruction}\n\n{input}"),
        }
    }

    /// `prompt` after a system message and earlier turns of question and answer, each a paragraph. For templates that are
    /// not the model's own.
    pub fn after<'a>(
        self,
        system: Option<&str>,
        turns: impl IntoIterator<Item = [&'a str; 2]>,
        prompt: &str,
    ) -> String {
        let mut whole = system.map_or(String::new(), |text| format!("{text}\n\n"));
        for [asked, answered] in turns {
            whole += &format!("{}{answered}\n\n", self.prompt(asked, ""));
        }
        whole + prompt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_the_published_ones() {
        assert_eq!(
            Template::Alpaca.prompt("Add 1 and 2.", ""),
            "Below is an instruction that describes a task. Write a response that appropriately completes the \
             request.\n\n### Instruction:\nAdd 1 and 2.\n\n### Response:\n"
        );
        assert!(
            Template::Alpaca
                .prompt("Add.", "1 2")
                .contains("\n\n### Input:\n1 2\n\n### Response:\n")
        );
        assert_eq!(
            Template::Plain.prompt("q\n\nAnswer format: a/b", ""),
            "q\n\nAnswer format: a/b\n"
        );
        assert!(Template::named("llama").unwrap_err().contains("'llama'"));
    }
}
