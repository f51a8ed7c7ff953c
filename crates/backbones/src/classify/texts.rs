//! Texts and pairs of texts to batches of tokens.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use tokenizers::{PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy};

use crate::error::{ImportError, TokenizerError};
use crate::lm::{Layout, Side};
use crate::tokens::Guarded;

/// The tokens of a text or of a pair, with the special tokens that the model expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// 1 for tokens of the second text, 0 for others.
    pub types: Vec<u32>,
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
}

impl TextTokenizer {
    /// Reads tokenizer.json of `folder`. Texts are truncated to `max_length` tokens, including special ones; of a pair, the
    /// longer text first. `vocab_size`: rows of the model's embedding.
    ///
    /// # Errors
    /// A file that is missing or malformed, a token that the embedding lacks, a length that leaves no room beside special tokens.
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
        let (inner, ()) = Guarded::load(&path, move |inner| {
            let beyond = vocab_size as u32..(vocab_size + inner.get_vocab_size(true)) as u32;
            if let Some((id, token)) = beyond.into_iter().find_map(|id| Some((id, inner.id_to_token(id)?))) {
                return Err(format!(
                    "token '{token}' has id {id}, but the model's embedding has {vocab_size} rows; use this model's own tokenizer"
                ));
            }
            let special = inner
                .get_post_processor()
                .map_or(0, |processor| processor.added_tokens(true));
            if max_length <= special {
                return Err(format!(
                    "{max_length} tokens leave no room for a text beside {special} special tokens; allow more"
                ));
            }
            inner.with_padding(None);
            let truncated = inner.with_truncation(Some(TruncationParams {
                direction: TruncationDirection::Right,
                max_length,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
            }));
            truncated.map(drop).map_err(|e| e.to_string())
        })?;
        Ok(Self { inner, vocab_size })
    }

    /// Tokens of a text, or of a pair.
    ///
    /// # Errors
    /// The error of the tokenizers library.
    pub fn encode(&self, text: &str, pair: Option<&str>) -> Result<Encoded, TokenizerError> {
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
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            types: encoding.get_type_ids().to_vec(),
        })
    }
}

impl TextBatch {
    /// `texts` as tensors, padded to the longest. An empty text becomes one padding token.
    ///
    /// # Panics
    /// `texts` is empty.
    pub fn new(texts: &[&Encoded], device: &Device) -> Self {
        assert!(!texts.is_empty(), "a batch needs at least one text");
        let lengths: Vec<usize> = texts.iter().map(|text| text.ids.len()).collect();
        let tokens = lengths.iter().copied().max().unwrap_or(0).max(1);
        // Values at padding are never read.
        let padded = |of: fn(&Encoded) -> &[u32]| {
            let rows = texts.iter().flat_map(|text| {
                let row = of(text).iter().map(|id| i64::from(*id));
                row.chain(std::iter::repeat(0)).take(tokens)
            });
            let data = TensorData::new(rows.collect::<Vec<i64>>(), [texts.len(), tokens]);
            Tensor::<2, Int>::from_data(data, device)
        };
        Self {
            ids: padded(|text| &text.ids),
            types: padded(|text| &text.types),
            layout: Layout::padded(&lengths, tokens, Side::Right),
        }
    }
}
