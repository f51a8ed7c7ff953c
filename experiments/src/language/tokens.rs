//! Examples as tokens: prompt, response, end token; only the response is trained on.

use backbones::lm::chat_template::{Chat, Conversation, chat_tokens};
use datasets::language::{Example, Examples, Template};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::language::data::Sequence;
use crate::language::model::Lm;

/// Tokenized examples, and counts of those that were truncated or left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tokenized {
    /// One for each usable example.
    pub sequences: Vec<Sequence>,
    /// Truncated to the maximum length, within the response.
    pub cut: usize,
    /// Left out because the prompt alone fills the maximum length.
    pub too_long: usize,
    /// Left out because of their length, on request.
    pub dropped: usize,
    /// Left out because the response is empty.
    pub empty: usize,
    /// Assistant turns that are not trained on, because the chat template rewrites them when more turns follow.
    pub lost_turns: usize,
    /// Left out because they cannot be tokenized.
    pub bad: usize,
    /// Reasons for the first few of those.
    pub reasons: Vec<String>,
}

/// Number of reasons that are printed.
const MOST_REASONS: usize = 5;

impl Tokenized {
    /// A summary for the user, in one line.
    pub fn describe(&self) -> String {
        let total: usize = self.sequences.iter().map(|sequence| sequence.ids.len()).sum();
        let mut text = format!("{} examples, {total} tokens", self.sequences.len());
        for (count, what) in [
            (self.cut, "cut at max_length"),
            (self.too_long, "dropped, their prompts longer than max_length"),
            (self.dropped, "dropped, of drop_longer tokens or more"),
            (self.empty, "dropped, their responses empty"),
            (self.lost_turns, "turns not learned, the chat template rewrites them"),
            (self.bad, "dropped"),
        ] {
            if count > 0 {
                text += &format!("; {count} {what}");
            }
        }
        if !self.reasons.is_empty() {
            text += &format!(" ({})", self.reasons.join("; "));
        }
        text
    }
}

/// How long examples may be, in tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lengths {
    /// Longer examples are truncated.
    pub most: usize,
    /// Examples with at least this many tokens, not counting the end token, are left out.
    pub dropped_from: Option<usize>,
}

/// Tokenizes `examples` within `lengths`.
///
/// # Errors
/// A chat without a chat template, a model without a token that ends a text, no usable example.
pub fn tokenize(given: &Examples, template: Template, lm: &Lm, lengths: Lengths) -> Result<Tokenized, String> {
    let (examples, max_length) = (&given.examples, lengths.most);
    let mut made = Tokenized::default();
    let mut longest_prompt = 0;
    let needs_chat = |example: &Example| match example {
        Example::Chat(_) => true,
        Example::Instruction { .. } => template == Template::Chat,
        Example::Completion { .. } => false,
    };
    // Compiled once: it serves all conversations.
    let chat = examples.iter().any(needs_chat).then(|| lm.chat()).transpose()?;
    let reader = Reader {
        template,
        lm,
        chat: chat.as_ref(),
        end: match examples.iter().all(needs_chat) {
            true => None,
            false => Some(lm.end_token()?),
        },
    };
    let usable = |example: &Example| (!example.is_empty()).then(|| reader.read(example));
    let read: Vec<Option<Result<Read, String>>> = examples.par_iter().map(usable).collect();
    for (index, read) in read.into_iter().enumerate() {
        let Read { mut sequence, lost } = match read {
            Some(Ok(read)) => read,
            Some(Err(reason)) => {
                made.bad += 1;
                if made.reasons.len() < MOST_REASONS {
                    made.reasons.push(given.about(index, reason));
                }
                continue;
            }
            None => {
                made.empty += 1;
                continue;
            }
        };
        made.lost_turns += lost;
        let length = sequence.ids.len();
        if lengths.dropped_from.is_some_and(|from| length > from) {
            made.dropped += 1;
            continue;
        }
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
             {longest_prompt} tokens with the response), {} are of drop_longer tokens or more, {} have an empty response, {} \
             cannot be read{}; raise max_length or mend the data",
            examples.len(),
            made.too_long,
            made.dropped,
            made.empty,
            made.bad,
            made.reasons
                .first()
                .map_or(String::new(), |reason| format!(" ({reason})"))
        ));
    }
    Ok(made)
}

/// What is needed to tokenize examples.
struct Reader<'a> {
    template: Template,
    lm: &'a Lm,
    chat: Option<&'a Chat>,
    /// The token that ends a response; not needed if all examples are chats.
    end: Option<u32>,
}

/// A tokenized example, and the number of its turns that are not trained on.
struct Read {
    sequence: Sequence,
    lost: usize,
}

impl Reader<'_> {
    fn read(&self, example: &Example) -> Result<Read, String> {
        let read = match example {
            Example::Completion { prompt, completion } => self.plain(prompt, completion)?,
            Example::Instruction {
                instruction,
                input,
                output,
            } => {
                let prompt = self.template.prompt(instruction, input);
                match self.template {
                    Template::Chat => {
                        let asked = json!({ "role": "user", "content": prompt });
                        let answered = json!({ "role": "assistant", "content": output });
                        self.chat(&[asked, answered], None, |_| true)?
                    }
                    Template::Alpaca | Template::Plain => self.plain(&prompt, output)?,
                }
            }
            Example::Chat(chat) => {
                let messages = chat.messages.iter().map(serde_json::to_value);
                let messages = messages.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
                let tools = (!chat.tools.is_empty()).then_some(&chat.tools[..]);
                self.chat(&messages, tools, |index| chat.messages[index].learned)?
            }
        };
        let rows = self.lm.pretrained.model.config().vocab_size;
        self.lm.tokenizer.check_ids(&read.sequence.ids, rows)?;
        Ok(read)
    }

    /// Prompt and response tokenized together, then the end token. As in the reference, the number of tokens that are
    /// not trained on is that of the prompt tokenized alone, including its begin token.
    fn plain(&self, prompt: &str, response: &str) -> Result<Read, String> {
        let tokenizer = &self.lm.tokenizer;
        let whole = tokenizer.encoded(&format!("{prompt}{response}"), true)?;
        let prompt = tokenizer.encoded(prompt, true)?;
        let masked = prompt.ids.len() - prompt.after;
        let mut ids = whole.ids;
        // Some tokenizers append the end token to every text.
        if whole.after == 0 || ids.last().copied() != self.end {
            ids.extend(self.end);
        }
        let learned = (0..ids.len()).map(|at| at >= masked).collect();
        let sequence = Sequence {
            ids,
            learned,
            ..Sequence::default()
        };
        Ok(Read { sequence, lost: 0 })
    }

    /// The conversation as rendered by the model's chat template. The assistant turns whose message indices are in
    /// `learned` are trained on, including their end tokens.
    fn chat(
        &self,
        messages: &[Value],
        tools: Option<&[Value]>,
        learned: impl Fn(usize) -> bool + Sync,
    ) -> Result<Read, String> {
        let chat = self.chat.ok_or("no chat template was compiled")?;
        let conversation = Conversation {
            messages,
            tools,
            ..Conversation::default()
        };
        let tokens = chat_tokens(&self.lm.tokenizer, chat, &conversation, learned).map_err(|e| e.to_string())?;
        if tokens.turns == 0 && tokens.lost > 0 {
            return Err("the chat template rewrites the assistant's turns; they cannot be told apart".into());
        }
        let sequence = Sequence {
            ids: tokens.ids,
            learned: tokens.targets,
            ..Sequence::default()
        };
        Ok(Read {
            sequence,
            lost: tokens.lost,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use backbones::lm::{LmTokenizer, LoadOptions, load_lm};
    use burn::tensor::Device;

    use super::*;

    const UP_TO_100: Lengths = Lengths {
        most: 100,
        dropped_from: None,
    };

    /// A tiny model with a tokenizer of the fixtures, its embedding grown to `rows`.
    fn lm(tokenizer: &str, template: &str, rows: usize) -> Lm {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/backbones/tests/fixtures");
        let dir = tempfile::tempdir().unwrap();
        let source = fixtures.join(format!("chat/tokenizers/{tokenizer}.json"));
        std::fs::copy(source, dir.path().join("tokenizer.json")).unwrap();
        let config = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": template});
        std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        let mut pretrained = load_lm(&fixtures.join("lm/llama"), &LoadOptions::default(), &Device::flex()).unwrap();
        pretrained.model = pretrained.model.with_vocabulary(rows);
        Lm {
            pretrained,
            tokenizer: LmTokenizer::load(dir.path()).unwrap(),
            folder: PathBuf::new(),
        }
    }

    fn completion(prompt: &str, completion: &str) -> Example {
        Example::Completion {
            prompt: prompt.into(),
            completion: completion.into(),
        }
    }

    #[test]
    fn a_text_ends_once_whatever_the_tokenizer_adds() {
        let mut all = Vec::new();
        for tokenizer in ["bytes", "bytes_eos"] {
            let lm = lm(tokenizer, "", 500);
            let made = tokenize(
                &vec![completion("the cat", " sat")].into(),
                Template::Plain,
                &lm,
                UP_TO_100,
            )
            .unwrap();
            let Sequence { ids, learned, .. } = &made.sequences[0];
            let end = lm.end_token().unwrap();
            assert_eq!(ids.iter().filter(|id| **id == end).count(), 1);
            let said: Vec<u32> = ids
                .iter()
                .zip(learned)
                .filter(|(_, learned)| **learned)
                .map(|(id, _)| *id)
                .collect();
            assert_eq!(lm.tokenizer.decode(&said, false).unwrap(), " sat</s>");
            all.push(ids.clone());
        }
        assert_eq!(all[0], all[1]);
    }

    #[test]
    fn long_examples_are_cut_or_left_out() {
        let lm = lm("bytes", "", 500);
        let examples = [completion("the cat", " sat"), completion("the cat", &" sat".repeat(20))];
        let short = tokenize(&examples[..1].to_vec().into(), Template::Plain, &lm, UP_TO_100).unwrap();
        let length = short.sequences[0].ids.len();
        let lengths = |most, dropped_from| Lengths { most, dropped_from };
        let made = |lengths| tokenize(&examples.to_vec().into(), Template::Plain, &lm, lengths).unwrap();
        let cut = made(lengths(length + 3, None));
        assert_eq!((cut.sequences.len(), cut.cut, cut.dropped), (2, 1, 0));
        // The end token is not counted.
        let dropped = made(lengths(100, Some(length)));
        assert_eq!((dropped.sequences.len(), dropped.cut, dropped.dropped), (1, 0, 1));
        let none = tokenize(
            &examples.to_vec().into(),
            Template::Plain,
            &lm,
            lengths(100, Some(length - 1)),
        )
        .unwrap_err();
        assert!(none.contains("2 are of drop_longer tokens or more"), "{none}");
    }

    #[test]
    fn one_bad_example_is_counted_and_named() {
        let template = "{% for m in messages %}{% if m.content == 'odd' %}{{ raise_exception('odd') }}{% endif %}\
                        {{ m.role }}:{{ m.content }};{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
        let lm = lm("bytes", template, 500);
        let instruction = |instruction: &str| Example::Instruction {
            instruction: instruction.into(),
            input: String::new(),
            output: "the cat".into(),
        };
        let examples = vec![instruction("a"), instruction("odd"), completion("x", "")];
        let made = tokenize(&examples.clone().into(), Template::Chat, &lm, UP_TO_100).unwrap();
        assert_eq!((made.sequences.len(), made.bad, made.empty), (1, 1, 1));
        assert!(
            made.reasons[0].starts_with("example 2: ") && made.describe().contains("odd"),
            "{}",
            made.describe()
        );
        let error = tokenize(&examples[1..].to_vec().into(), Template::Chat, &lm, UP_TO_100).unwrap_err();
        assert!(error.contains("none of the 2") && error.contains("odd"), "{error}");
    }

    #[test]
    fn a_bad_example_of_a_file_is_named_by_its_line() {
        let template = "{% for m in messages %}{% if m.content == 'odd' %}{{ raise_exception('odd') }}{% endif %}\
                        {{ m.content }};{% endfor %}";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.jsonl");
        let line = |text: &str| json!({ "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "the"}] });
        std::fs::write(&path, format!("{}\n\n{}\n", line("a"), line("odd"))).unwrap();
        let examples = datasets::language::example::read(&[path], &Default::default()).unwrap();
        let made = tokenize(&examples, Template::Chat, &lm("bytes", template, 500), UP_TO_100).unwrap();
        assert_eq!((made.sequences.len(), made.bad), (1, 1));
        assert!(made.reasons[0].contains("train.jsonl:3: "), "{}", made.reasons[0]);
    }

    #[test]
    fn a_token_beyond_the_embedding_is_one_bad_example() {
        let lm = lm("bytes", "", 300);
        let known = lm.tokenizer.encode("a", false).unwrap()[0];
        assert!(known < 300);
        // A whole word, so that it is one token in any position.
        let word = |id: u32| {
            let text = lm.tokenizer.decode(&[id], true).ok()?;
            let letters = text.strip_prefix(' ')?;
            let whole = !letters.is_empty() && letters.chars().all(|c| c.is_ascii_alphabetic());
            whole.then_some(text)
        };
        let beyond = (300..376).find_map(word);
        let examples = vec![completion("a", "b"), completion("a", &beyond.unwrap())];
        let made = tokenize(&examples.into(), Template::Plain, &lm, UP_TO_100).unwrap();
        assert_eq!((made.sequences.len(), made.bad), (1, 1));
        assert!(made.reasons[0].contains("300 rows"), "{}", made.reasons[0]);
    }
}
