//! Text to tokens and back: tokenizer.json, with the special tokens, added tokens and chat templates that stand in the
//! files beside it, read as transformers reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::chat_template::templates::ChatTemplates;
use crate::error::{ImportError, TokenizerError};
use crate::json::read_object;
use crate::tokens::Guarded;

/// A tokenizer in Hugging Face's format.
#[derive(Debug, Clone)]
pub struct LmTokenizer {
    inner: Guarded,
    /// Texts of special tokens by their names, such as `bos_token`; chat templates see them.
    pub special_tokens: BTreeMap<String, String>,
    /// Jinja templates that make a prompt of chat messages.
    pub chat_templates: ChatTemplates,
}

/// The tokens of a text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// For each token, the bytes of the text that it stands for; empty for one that the tokenizer added.
    pub bytes: Vec<Range<usize>>,
    /// Tokens that the tokenizer added before the text, such as BOS.
    pub before: usize,
    /// Tokens that it added after the text, such as EOS.
    pub after: usize,
}

/// The names of special tokens that every tokenizer may have.
const NAMED: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

impl LmTokenizer {
    /// Reads tokenizer.json of `folder`, and where they are there tokenizer_config.json, special_tokens_map.json,
    /// added_tokens.json, chat_template.jinja, additional_chat_templates and chat_template.json.
    ///
    /// # Errors
    /// A file that is missing or malformed.
    pub fn load(folder: &Path) -> Result<Self, ImportError> {
        let path = folder.join("tokenizer.json");
        let error = |message: String| ImportError::Config {
            path: path.clone(),
            message,
        };
        if !path.is_file() {
            return Err(error(
                "the tokenizer is missing; fetch it with the model, or give tokens instead of text".into(),
            ));
        }
        let beside = folder.to_path_buf();
        let (inner, config) = Guarded::load(&path, move |inner, fields| {
            // Prompts are cut and padded by their user, never silently.
            let _ = inner.with_truncation(None);
            inner.with_padding(None);
            let known = inner.get_added_tokens_decoder().into_values();
            let known: BTreeMap<String, AddedToken> = known.map(|token| (token.content.clone(), token)).collect();
            let config = Config::load(&beside, fields, &known.keys().cloned().collect());
            // Without a new one, the library would prepare its search for all of them again: seconds for 100,000.
            if let Ok(config) = &config
                && config
                    .added
                    .iter()
                    .any(|token| known.get(&token.content) != Some(token))
            {
                inner.add_tokens(&config.added);
            }
            Ok(config)
        })?;
        let config = config?;
        Ok(Self {
            inner,
            special_tokens: config.special,
            chat_templates: ChatTemplates::load(folder, config.chat_template.as_ref())?,
        })
    }

    /// Text of the token that ends a text.
    pub fn eos_token(&self) -> Option<&str> {
        self.special_tokens.get("eos_token").map(String::as_str)
    }

    /// Tokens of a text; with `special`, including those that the tokenizer adds to every text, such as BOS.
    ///
    /// # Errors
    /// The error of the tokenizers library.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        self.encoded(text, special).map(|encoded| encoded.ids)
    }

    /// As [`LmTokenizer::encode`], with the place of each token in the text.
    ///
    /// # Errors
    /// The error of the tokenizers library.
    pub fn encoded(&self, text: &str, special: bool) -> Result<Encoded, TokenizerError> {
        let own = || text.to_string();
        let encoding = self
            .inner
            .call(own, text.len(), move |inner, text| inner.encode(text, special))?;
        let added = encoding.get_special_tokens_mask();
        let before = added.iter().take_while(|added| **added == 1).count();
        let after = added[before..].iter().rev().take_while(|added| **added == 1).count();
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            bytes: encoding.get_offsets().iter().map(|(start, end)| *start..*end).collect(),
            before,
            after,
        })
    }

    /// Text of tokens, without special ones if `skip_special`.
    ///
    /// # Errors
    /// The error of the tokenizers library.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        let own = || ids.to_vec();
        self.inner
            .call(own, ids.len() * 8, move |inner, ids| inner.decode(&ids, skip_special))
    }

    /// Id of a token.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.inner().token_to_id(token)
    }

    /// True for a token that stands for one byte, such as `<0x0A>`: its text depends on its neighbours.
    pub fn is_byte(&self, id: u32) -> bool {
        let token = self.inner.inner().id_to_token(id).unwrap_or_default();
        let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
        hex.is_some_and(|hex| hex.len() == 2 && hex.chars().all(|c| c.is_ascii_hexdigit()))
    }

    /// Checks that a model's embedding of `rows` rows has all of `ids`. A tokenizer may know tokens that its model does
    /// not; only a text that contains one of them is refused.
    ///
    /// # Errors
    /// The first token that is beyond the embedding.
    pub fn check_ids(&self, ids: &[u32], rows: usize) -> Result<(), TokenizerError> {
        match ids.iter().find(|id| **id as usize >= rows) {
            None => Ok(()),
            Some(id) => Err(TokenizerError::BeyondEmbedding {
                token: self.inner.inner().id_to_token(*id).unwrap_or_default(),
                id: *id,
                rows,
            }),
        }
    }
}

/// What the files beside tokenizer.json say.
struct Config {
    special: BTreeMap<String, String>,
    added: Vec<AddedToken>,
    chat_template: Option<Value>,
}

impl Config {
    /// `config`: the fields of tokenizer_config.json. `known`: the added tokens that the tokenizer has of tokenizer.json.
    fn load(folder: &Path, mut config: Map<String, Value>, known: &BTreeSet<String>) -> Result<Self, ImportError> {
        let read = |name: &str| read_object(&folder.join(name));
        let mut by_number: BTreeMap<u64, AddedToken> = BTreeMap::new();
        match config.get("added_tokens_decoder").and_then(Value::as_object) {
            Some(decoder) => {
                let token = |(id, token): (&String, &Value)| Some((id.parse().ok()?, added(token, None)?));
                by_number.extend(decoder.iter().filter_map(token));
            }
            // Files of before added_tokens_decoder: these then win over tokenizer_config.json.
            None => {
                config.extend(read("special_tokens_map.json")?);
                let special = named_tokens(&config);
                let extra = extra_tokens(&config);
                for (token, id) in read("added_tokens.json")? {
                    let known = special.iter().any(|(_, named)| named.content == token)
                        || extra.iter().any(|one| one.content == token);
                    let token = AddedToken::from(token, known).normalized(!known);
                    by_number.extend(id.as_u64().map(|id| (id, token)));
                }
            }
        }
        let special = named_tokens(&config);
        let mut all: Vec<AddedToken> = by_number.into_values().collect();
        for token in &mut all {
            token.special |= special.iter().any(|(_, named)| named.content == token.content);
        }
        // Named and listed ones that no file has numbered.
        let named = special.iter().map(|(_, token)| token.clone());
        for token in named.chain(extra_tokens(&config)) {
            if !known.contains(&token.content) && !all.iter().any(|other| other.content == token.content) {
                all.push(token);
            }
        }
        Ok(Self {
            added: all.into_iter().filter(|token| !token.content.is_empty()).collect(),
            chat_template: config.remove("chat_template"),
            special: special.into_iter().map(|(name, token)| (name, token.content)).collect(),
        })
    }
}

/// The special tokens with names, in the order in which they are numbered: the usual ones, and whatever else a model calls
/// `…_token`.
fn named_tokens(config: &Map<String, Value>) -> Vec<(String, AddedToken)> {
    let is_usual = |name: &str| NAMED.contains(&name);
    let usual = NAMED.iter().filter_map(|name| config.get_key_value(*name));
    let own = config
        .iter()
        .filter(|(name, _)| name.ends_with("_token") && !is_usual(name));
    let more = ["extra_special_tokens", "model_specific_special_tokens"];
    let more = more
        .into_iter()
        .filter_map(|field| config.get(field)?.as_object())
        .flatten();
    let named = usual.chain(own).chain(more).filter_map(|(name, value)| {
        // add_bos_token and its like are switches.
        let token = added(value, Some(true))?;
        (is_usual(name) || !token.content.is_empty()).then(|| (name.clone(), token))
    });
    named.collect()
}

/// The special tokens that have no name.
fn extra_tokens(config: &Map<String, Value>) -> Vec<AddedToken> {
    let list = |field: &str| {
        config
            .get(field)
            .and_then(Value::as_array)
            .filter(|list| !list.is_empty())
    };
    let tokens = list("extra_special_tokens").or(list("additional_special_tokens"));
    let tokens = tokens.into_iter().flatten();
    // One with settings says itself whether it is special.
    tokens
        .filter_map(|token| added(token, token.is_string().then_some(true)))
        .collect()
}

/// A token in any of its forms on disk. `special` of who names it; the token's own word otherwise.
fn added(json: &Value, special: Option<bool>) -> Option<AddedToken> {
    let flag = |name: &str| json.get(name).and_then(Value::as_bool);
    let content = json.get("content").unwrap_or(json).as_str()?;
    let special = special.or(flag("special")).unwrap_or(false);
    let token = AddedToken::from(content, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false))
        .normalized(flag("normalized").unwrap_or(!special));
    Some(token)
}
