//! Examples as tokens: prompt, response, end token; only the response is trained on.

use backbones::lm::LmTokenizer;
use backbones::lm::chat_template::{Chat, Conversation, chat_tokens};
use backbones::long_text::{Kept, part_to_read};
use datasets::language::{Example, Examples, Template};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::language::data::Sequence;
use crate::language::model::Lm;
use crate::language::tokenized::{MOST_REASONS, Tokenized};

/// How long examples may be, in tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lengths {
    /// Longer examples are truncated.
    pub most: usize,
    /// Examples with at least this many tokens, not counting the end token, are left out.
    pub dropped_from: Option<usize>,
}

/// Bytes of a message that a chat template gets as a whole: it may leave out a part, such as the thoughts before an answer.
const LONG_MESSAGE: usize = 1 << 20;

/// Tokenizes `examples` within `lengths`.
///
/// # Errors
/// A chat without a chat template, a model without a token that ends a text, no usable example.
pub fn tokenize(given: &Examples, template: Template, lm: &Lm, lengths: Lengths) -> Result<Tokenized, String> {
    let (examples, max_length) = (&given.examples, lengths.most);
    let mut made = Tokenized::default();
    let mut longest_prompt = 0;
    let needs_chat = |example: &Example| match example {
        Example::Chat(chat) => template == Template::Chat || chat.instruction.is_none(),
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
        needed: max_length.max(lengths.dropped_from.unwrap_or(0)),
    };
    let usable = |example: &Example| (!example.is_empty()).then(|| reader.read(example));
    let read: Vec<Option<Result<Read, String>>> = examples.par_iter().map(usable).collect();
    let mixed = template != Template::Chat
        && examples
            .iter()
            .any(|example| matches!(example, Example::Instruction { .. }));
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
        made.conversations += usize::from(mixed && needs_chat(&examples[index]));
        made.sequences.push(sequence);
    }
    if made.sequences.is_empty() {
        return Err(format!(
            "none of the {} training examples is usable: {} have a prompt longer than max_length {max_length} (the \
             longest has at least {longest_prompt} tokens with the response), {} are of drop_longer tokens or more, {} have an empty response, {} \
             cannot be read{}; raise max_length or correct the data",
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

/// The beginning of a text that is far longer than what is `needed` of its tokens, or all of it.
///
/// # Errors
/// A text that cannot be tokenized.
pub fn beginning<'a>(tokenizer: &LmTokenizer, text: &'a str, needed: usize) -> Result<&'a str, String> {
    let count = |part: &str| Ok(tokenizer.encode(part, true)?.len());
    part_to_read(text, needed, Kept::Beginning, count)
}

/// What is needed to tokenize examples.
struct Reader<'a> {
    template: Template,
    lm: &'a Lm,
    chat: Option<&'a Chat>,
    /// The token that ends a response; not needed if all examples are chats.
    end: Option<u32>,
    /// Tokens of an example that make a difference.
    needed: usize,
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
                let own = self.template != Template::Chat;
                match own.then(|| chat.in_template(self.template)).flatten() {
                    Some((prompt, response)) => self.plain(&prompt, &response)?,
                    None => {
                        let messages = chat.messages.iter().map(serde_json::to_value);
                        let messages = messages.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
                        let tools = (!chat.tools.is_empty()).then_some(&chat.tools[..]);
                        self.chat(&messages, tools, |index| chat.messages[index].learned)?
                    }
                }
            }
        };
        // Tokens that the model does not have are refused.
        let rows = self.lm.pretrained.model.config().vocab_size;
        self.lm.tokenizer.check_ids(&read.sequence.ids, rows)?;
        Ok(read)
    }

    /// Prompt and response tokenized together, then the end token. As in the reference, the number of tokens that are
    /// not trained on is that of the prompt tokenized alone, including its begin token.
    fn plain(&self, prompt: &str, response: &str) -> Result<Read, String> {
        let tokenizer = &self.lm.tokenizer;
        let text = format!("{prompt}{response}");
        let whole = tokenizer.encoded(beginning(tokenizer, &text, self.needed)?, true)?;
        let prompt = tokenizer.encoded(beginning(tokenizer, prompt, self.needed)?, true)?;
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
        let shortened = self.shortened(messages)?;
        let conversation = Conversation {
            messages: shortened.as_deref().unwrap_or(messages),
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

    /// `messages` with the beginnings of those that are far longer than what is needed, if there are such.
    fn shortened(&self, messages: &[Value]) -> Result<Option<Vec<Value>>, String> {
        let is_long = |message: &Value| {
            message["content"]
                .as_str()
                .is_some_and(|text| text.len() > LONG_MESSAGE)
        };
        if !messages.iter().any(is_long) {
            return Ok(None);
        }
        let mut messages = messages.to_vec();
        for message in messages.iter_mut().filter(|message| is_long(message)) {
            if let Some(Value::String(text)) = message.get_mut("content") {
                let length = beginning(&self.lm.tokenizer, text, self.needed)?.len();
                text.truncate(length);
            }
        }
        Ok(Some(messages))
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use backbones::lm::{LoadOptions, load_lm};
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
    fn an_example_far_beyond_the_maximum_length_gives_the_tokens_of_a_shorter_one() {
        let lm = lm("bytes", "", 500);
        let of = |prompt: usize, response: usize, dropped_from: Option<usize>| {
            let [prompt, response] = [("the cat", prompt), (" sat", response)].map(|(text, count)| text.repeat(count));
            let other = completion("the", " cat");
            let lengths = Lengths { most: 20, dropped_from };
            tokenize(
                &vec![completion(&prompt, &response), other].into(),
                Template::Plain,
                &lm,
                lengths,
            )
            .unwrap()
        };
        let long = of(1, 40_000, None);
        assert_eq!((long.sequences.len(), long.cut), (2, 1));
        assert_eq!(long, of(1, 100, None));
        assert_eq!(
            (of(40_000, 1, None).too_long, of(1, 40_000, Some(1000)).dropped),
            (1, 1)
        );
        let reader = Reader {
            template: Template::Chat,
            lm: &lm,
            chat: None,
            end: None,
            needed: 20,
        };
        let message = |content: &str| json!({ "role": "user", "content": content });
        let long = "the cat sat ".repeat(LONG_MESSAGE / 12 + 1);
        let made = reader.shortened(&[message(&long), message("on")]).unwrap().unwrap();
        let text = made[0]["content"].as_str().unwrap();
        assert!(long.starts_with(text) && lm.tokenizer.encode(text, true).unwrap().len() > 20);
        assert!(text.len() < LONG_MESSAGE / 10 && made[1] == message("on"));
        assert_eq!(reader.shortened(&made), Ok(None));
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
    fn a_system_message_and_earlier_turns_do_not_change_the_template() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.jsonl");
        let records = [
            json!({"instruction": "the cat", "output": "sat"}),
            json!({"instruction": "the cat", "output": "sat", "system": "be nice", "history": [["a", "b"]]}),
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
        ];
        std::fs::write(&path, records.map(|record| format!("{record}\n")).concat()).unwrap();
        let examples = datasets::language::example::read(&[path], &Default::default()).unwrap();
        let template = "{% for m in messages %}CHAT {{ m.content }};{% endfor %}";
        let lm = lm("bytes", template, 500);
        let made = tokenize(&examples, Template::Plain, &lm, UP_TO_100).unwrap();
        let texts = made.sequences.iter().map(|sequence| {
            let learned = sequence
                .ids
                .iter()
                .zip(&sequence.learned)
                .filter(|(_, learned)| **learned);
            let learned: Vec<u32> = learned.map(|(id, _)| *id).collect();
            [&sequence.ids, &learned].map(|ids| lm.tokenizer.decode(ids, true).unwrap())
        });
        let texts: Vec<[String; 2]> = texts.collect();
        assert!(texts[0][0].ends_with("the cat\nsat"), "{texts:?}");
        assert!(texts[1][0].ends_with("be nice\n\na\nb\n\nthe cat\nsat"), "{texts:?}");
        assert_eq!([&texts[0][1], &texts[1][1]], ["sat", "sat"]);
        assert!(texts[2][0].contains("CHAT"), "{texts:?}");
        assert!(
            made.describe().contains("; 1 of them conversations"),
            "{}",
            made.describe()
        );
        let same = tokenize(&examples, Template::Chat, &lm, UP_TO_100).unwrap();
        assert!(same.conversations == 0 && !same.describe().contains("of them"));
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
