//! Examples as tokens: prompt, response, end; the response alone is learned.

use datasets::language::{Example, Message, Template};
use rayon::prelude::*;
use serde_json::Value;

use crate::language::batches::Sequence;
use crate::language::model::Lm;

/// Examples as tokens, and what became of the others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tokenized {
    /// One for each usable example.
    pub sequences: Vec<Sequence>,
    /// Cut at the greatest length, within the response.
    pub cut: usize,
    /// Left out because the prompt alone fills the greatest length.
    pub too_long: usize,
    /// Left out because the response is empty.
    pub empty: usize,
}

impl Tokenized {
    /// What a user should know, in one line.
    pub fn describe(&self) -> String {
        let total: usize = self.sequences.iter().map(|sequence| sequence.ids.len()).sum();
        let mut text = format!("{} examples, {total} tokens", self.sequences.len());
        for (count, what) in [
            (self.cut, "cut at max_length"),
            (self.too_long, "dropped, their prompts longer than max_length"),
            (self.empty, "dropped, their responses empty"),
        ] {
            if count > 0 {
                text += &format!("; {count} {what}");
            }
        }
        text
    }
}

/// The tokens of `examples`, at most `max_length` each.
///
/// # Errors
/// A tokenizer that fails, a chat without a chat template, no usable example.
pub fn tokenize(examples: &[Example], template: Template, lm: &Lm, max_length: usize) -> Result<Tokenized, String> {
    let mut made = Tokenized::default();
    let mut longest_prompt = 0;
    let usable = |example: &Example| {
        (!example.is_empty())
            .then(|| sequence(example, template, lm))
            .transpose()
    };
    let sequences: Vec<Option<Sequence>> = examples.par_iter().map(usable).collect::<Result<_, String>>()?;
    for sequence in sequences {
        let Some(mut sequence) = sequence else {
            made.empty += 1;
            continue;
        };
        let length = sequence.ids.len();
        sequence.ids.truncate(max_length);
        sequence.learned.truncate(max_length);
        if sequence.count() == 0 {
            longest_prompt = longest_prompt.max(length);
            made.too_long += 1;
            continue;
        }
        made.cut += usize::from(length > max_length);
        made.sequences.push(sequence);
    }
    if made.sequences.is_empty() {
        return Err(format!(
            "none of the {} training examples is usable: {} have a prompt longer than max_length {max_length} (up to \
             {longest_prompt} tokens with the response), {} an empty response; raise max_length or mend the data",
            examples.len(),
            made.too_long,
            made.empty
        ));
    }
    Ok(made)
}

fn sequence(example: &Example, template: Template, lm: &Lm) -> Result<Sequence, String> {
    match example {
        Example::Completion { prompt, completion } => plain(prompt, completion, lm),
        Example::Instruction {
            instruction,
            input,
            output,
        } => {
            let prompt = template.prompt(instruction, input);
            match template {
                Template::Chat => chat(&[Message::user(prompt), Message::new("assistant", output)], &[], lm),
                Template::Alpaca | Template::Plain => plain(&prompt, output, lm),
            }
        }
        Example::Chat(chat) => self::chat(&chat.messages, &chat.tools, lm),
    }
}

/// Prompt and response tokenized together, then the end token. As in the reference, what is not learned is as many
/// tokens as the prompt has by itself, its begin token included.
fn plain(prompt: &str, response: &str, lm: &Lm) -> Result<Sequence, String> {
    let mut ids = lm.tokenizer.encode(&format!("{prompt}{response}"), true)?;
    let masked = lm.tokenizer.encode(prompt, true)?.len();
    ids.push(lm.end_token()?);
    let learned = (0..ids.len()).map(|at| at >= masked).collect();
    Ok(Sequence {
        ids,
        learned,
        ..Sequence::default()
    })
}

/// The model's chat template, the assistant's turns learned up to and with their end, but for those that are not to be learned.
fn chat(messages: &[Message], tools: &[Value], lm: &Lm) -> Result<Sequence, String> {
    let mut sequence = Sequence::default();
    let mut push = |text: &str, learned: bool| -> Result<(), String> {
        // The template writes the special tokens itself.
        let ids = lm.tokenizer.encode(text, false)?;
        sequence.learned.resize(sequence.learned.len() + ids.len(), learned);
        sequence.ids.extend(ids);
        Ok(())
    };
    let mut written = String::new();
    for (index, turn) in messages.iter().enumerate().filter(|(_, turn)| turn.role == "assistant") {
        let before = lm.chat_text(&messages[..index], tools, true)?;
        let with = lm.chat_text(&messages[..=index], tools, false)?;
        let new = |text: &str, known: &str| text.strip_prefix(known).map(str::to_string);
        let (Some(prompt), Some(response)) = (new(&before, &written), new(&with, &before)) else {
            return Err(format!(
                "the chat template rewrites what came before the turn '{}'; its responses cannot be told apart",
                turn.content.chars().take(40).collect::<String>()
            ));
        };
        push(&prompt, false)?;
        push(&response, turn.learned)?;
        written = with;
    }
    Ok(sequence)
}
