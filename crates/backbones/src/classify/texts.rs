//! Texts and pairs of texts to batches of tokens.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::{Map, Value};
use tokenizers::{Encoding, PostProcessor, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

use crate::error::{ImportError, TokenizerError};
use crate::json::read_json;
use crate::lm::{Layout, Side};
use crate::long_text::{Kept, part_to_read};
use crate::tokens::Guarded;

/// The tokens of a text or of a pair, with the special tokens that the model expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// 1 for tokens of the second text, 0 for others; all 0 if the tokenizer does not give its model types.
    pub types: Vec<u32>,
    /// True for tokens with the id of the model's padding token, which a text may hold too; empty if there is none. See
    /// [`Layout::with_blanks`].
    pub blanks: Vec<bool>,
}

/// Texts of a batch, padded on the right.
#[derive(Debug, Clone)]
pub struct TextBatch {
    /// `[batch, tokens]`
    pub ids: Tensor<2, Int>,
    /// Position of its tokens and padding.
    pub layout: Layout,
    /// `[batch, tokens]`
    pub types: Tensor<2, Int>,
}

/// A tokenizer that truncates texts to the model's length.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: Guarded,
    vocab_size: usize,
    max_length: usize,
    /// The end of a text that truncation keeps.
    kept: Kept,
    /// The model's padding token.
    padding: Option<u32>,
}

impl TextTokenizer {
    /// Reads tokenizer.json of `folder`. Texts are truncated to `max_length` tokens, including special ones, on the side
    /// that tokenizer_config.json gives as `truncation_side` (the right by default); of a pair, the longer text first.
    /// `vocab_size`: rows of the model's embedding.
    ///
    /// # Errors
    /// A file that is missing or malformed, a length that leaves no room beside special tokens.
    pub fn load(folder: &Path, vocab_size: usize, max_length: usize) -> Result<Self, ImportError> {
        let path = folder.join("tokenizer.json");
        let error = |message: String| ImportError::Config {
            path: path.clone(),
            message,
        };
        if !path.is_file() {
            let message = "the tokenizer is missing; fetch it with the model, or in Python: \
                           transformers.AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)";
            return Err(error(message.into()));
        }
        let (inner, kept) = Guarded::load(&path, move |inner, fields| {
            let special = inner
                .get_post_processor()
                .map_or(0, |processor| processor.added_tokens(true));
            if max_length <= special {
                return Err(format!(
                    "{max_length} tokens leave no room for a text beside {special} special tokens; allow more"
                ));
            }
            let direction = truncation_side(&fields, inner.get_truncation())?;
            inner.with_padding(None);
            let truncated = inner.with_truncation(Some(TruncationParams {
                direction,
                max_length,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
            }));
            truncated.map_err(|e| e.to_string())?;
            Ok(match direction {
                TruncationDirection::Right => Kept::Beginning,
                TruncationDirection::Left => Kept::End,
            })
        })?;
        // Errors in config.json are reported where the model is loaded.
        let config = read_json(&folder.join("config.json")).unwrap_or_default();
        Ok(Self {
            inner,
            vocab_size,
            max_length,
            kept,
            padding: padding_token(&config),
        })
    }

    /// Tokens of a text, or of a pair.
    ///
    /// # Errors
    /// The error of the tokenizers library, a token that the embedding lacks.
    pub fn encode(&self, text: &str, pair: Option<&str>) -> Result<Encoded, TokenizerError> {
        let text = self.read_of(text)?;
        let pair = pair.map(|pair| self.read_of(pair)).transpose()?;
        let own = || (text.to_string(), pair.map(String::from));
        let bytes = text.len() + pair.map_or(0, str::len);
        let encoding = self.inner.call(own, bytes, |inner, (text, pair)| match pair {
            None => inner.encode(text, true),
            Some(pair) => inner.encode((text, pair), true),
        })?;
        // A token may have any number, far beyond the last as well.
        if let Some(id) = encoding.get_ids().iter().find(|id| **id as usize >= self.vocab_size) {
            return Err(TokenizerError::BeyondEmbedding {
                token: self.inner.inner().id_to_token(*id).unwrap_or_default(),
                id: *id,
                rows: self.vocab_size,
            });
        }
        let ids = encoding.get_ids().to_vec();
        let types = match self.inner.types {
            true => encoding.get_type_ids().to_vec(),
            false => vec![0; ids.len()],
        };
        let is_blank = |id: &u32| Some(*id) == self.padding;
        let blanks = match ids.iter().any(is_blank) {
            true => ids.iter().map(is_blank).collect(),
            false => Vec::new(),
        };
        Ok(Encoded { ids, types, blanks })
    }

    /// The part of a text that can be kept: the rest of a very long one would take gigabytes. It has more tokens than are
    /// kept of a pair, so that a shorter text beside it stays the shorter one. Of two very long texts, the one to keep an
    /// odd token may be the other one.
    fn read_of<'a>(&self, text: &'a str) -> Result<&'a str, TokenizerError> {
        part_to_read(text, self.max_length, self.kept, |part| {
            let tokenized = |inner: &Tokenizer, part: String| inner.encode(part, true);
            let encoding = self.inner.call(|| part.to_string(), part.len(), tokenized)?;
            let truncated = encoding.get_overflowing().iter().map(Encoding::len);
            Ok(encoding.len() + truncated.sum::<usize>())
        })
    }
}

/// Where texts are truncated, as transformers has it: by `truncation_side` of tokenizer_config.json, whose fields these are,
/// or else by tokenizer.json.
fn truncation_side(fields: &Map<String, Value>, own: Option<&TruncationParams>) -> Result<TruncationDirection, String> {
    match fields.get("truncation_side") {
        None | Some(Value::Null) => Ok(own.map_or(TruncationDirection::Right, |own| own.direction)),
        Some(side) => match side.as_str() {
            Some("left") => Ok(TruncationDirection::Left),
            Some("right") => Ok(TruncationDirection::Right),
            _ => Err(format!(
                "field 'truncation_side' of tokenizer_config.json is {side}; expected left or right"
            )),
        },
    }
}

/// The padding tokens of transformers' configs, by `model_type`; other models have none.
const PADDING: [(&str, u32); 7] = [
    ("camembert", 1),
    ("gemma2", 0),
    ("gemma3_text", 0),
    ("phi3", 32_000),
    ("roberta", 1),
    ("smollm3", 128_004),
    ("xlm-roberta", 1),
];

/// The padding token of a model by its config.json; `null` and a negative number stand for none.
fn padding_token(config: &Value) -> Option<u32> {
    let config = config.get("text_config").unwrap_or(config);
    match config.get("pad_token_id") {
        Some(id) => id.as_u64().and_then(|id| u32::try_from(id).ok()),
        None => {
            let kind = config.get("model_type")?.as_str()?;
            PADDING.iter().find(|(name, _)| *name == kind).map(|(_, id)| *id)
        }
    }
}

impl TextBatch {
    /// `texts` as tensors, padded to the longest. An empty text becomes one padding token.
    ///
    /// # Panics
    /// `texts` is empty.
    pub fn new(texts: &[&Encoded], device: &Device) -> Self {
        Self::padded(texts, 0, device)
    }

    /// [`TextBatch::new`] with padding to at least `width` tokens.
    ///
    /// # Panics
    /// `texts` is empty.
    pub fn padded(texts: &[&Encoded], width: usize, device: &Device) -> Self {
        assert!(!texts.is_empty(), "a batch needs at least one text");
        let lengths: Vec<usize> = texts.iter().map(|text| text.ids.len()).collect();
        let tokens = lengths.iter().copied().max().unwrap_or(0).max(1);
        let width = width.max(tokens);
        // Values at padding are never read.
        let padded = |of: fn(&Encoded) -> &[u32]| {
            let rows = texts.iter().flat_map(|text| {
                let row = of(text).iter().map(|id| i64::from(*id));
                row.chain(std::iter::repeat(0)).take(width)
            });
            let data = TensorData::new(rows.collect::<Vec<i64>>(), [texts.len(), width]);
            Tensor::<2, Int>::from_data(data, device)
        };
        let layout = Layout::padded(&lengths, tokens, Side::Right);
        let layout = match texts.iter().all(|text| text.blanks.is_empty()) {
            true => layout,
            false => {
                let blanks = texts.iter().flat_map(|text| {
                    let row = text.blanks.iter().copied();
                    row.chain(std::iter::repeat(false)).take(tokens)
                });
                layout.with_blanks(blanks.collect())
            }
        };
        Self {
            ids: padded(|text| &text.ids),
            types: padded(|text| &text.types),
            layout: layout.padded_to(width),
        }
    }
}
