//! The tokenizers library on a stranger's tokenizer.json: its panics become errors, it loads files under limits of time and
//! memory, and so it works on long texts and wherever regular expressions or replacements may explode.

mod charsmap;
mod class;
mod long_tokens;
mod own_steps;
mod pattern;
mod settings;
mod steps;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokenizers::Tokenizer;
use wegeft::guard::guarded;

use self::settings::Settings;
use self::steps::Steps;
use crate::error::{ImportError, TokenizerError};
use crate::watch::{Limits, Unfinished, watched};

/// Bytes of a text times regular expressions that are worked on without limits: a harmless one may still look through the
/// whole text at each of its places.
const SHORT: usize = 20_000;

/// For one text, and for what is done with it.
const MOST_TIME: Duration = Duration::from_secs(10);
const LEAST_MEMORY: u64 = 64 << 20;
/// Bytes of memory for each byte of text.
const MEMORY_PER_BYTE: u64 = 1000;
/// Microseconds for each byte of a long text; one is usual.
const MICROS_PER_BYTE: u64 = 30;

/// For a file that is loaded. A large vocabulary takes 100 bytes of memory and a microsecond for each byte of it.
const LOADING_MEMORY: u64 = 256 << 20;
const LOADING_MEMORY_PER_BYTE: u64 = 300;
const LOADING_TIME: Duration = Duration::from_secs(15);
const LOADING_MICROS_PER_BYTE: u64 = 10;
/// For the bytes of any file: vocabularies of 30 MB load within a few seconds.
const MOST_LOADING_TIME: Duration = Duration::from_secs(45);
/// The files beside tokenizer.json that name tokens.
const BESIDE: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

/// A tokenizer of the tokenizers library.
#[derive(Debug, Clone)]
pub(crate) struct Guarded {
    inner: Arc<Tokenizer>,
    /// Nothing in the file can take much more time or memory than the text gives reason for.
    harmless: bool,
    /// Regular expressions in the file.
    patterns: usize,
    /// False if the model is not given the types of tokens (`model_input_names`): all are 0 to it.
    pub types: bool,
}

impl Guarded {
    /// Reads `path` and the settings beside it; `prepare` makes of it, and of the fields of tokenizer_config.json, what its
    /// user needs.
    ///
    /// # Errors
    /// A file that is malformed or takes too long or too much, or what `prepare` says.
    pub fn load<T: Send + 'static>(
        path: &Path,
        prepare: impl FnOnce(&mut Tokenizer, Map<String, Value>) -> Result<T, String> + Send + 'static,
    ) -> Result<(Self, T), ImportError> {
        let error = |message: String| ImportError::Config {
            path: path.to_path_buf(),
            message: files::explained(path, message),
        };
        let text = files::read_text(path, u64::MAX).map_err(|e| error(format!("cannot read it ({e})")))?;
        let steps: Steps = serde_json::from_str(&text).map_err(|e| error(format!("no tokenizer ({e})")))?;
        steps.check().map_err(error)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        long_tokens::refuse(folder)?;
        let settings = Settings::load(folder, &text)?;
        let beside = BESIDE.iter().filter_map(|name| folder.join(name).metadata().ok());
        let bytes = text.len() as u64 + beside.map(|file| file.len()).sum::<u64>();
        let limits = Limits {
            memory: LOADING_MEMORY + LOADING_MEMORY_PER_BYTE * bytes,
            time: LOADING_TIME + Duration::from_micros(LOADING_MICROS_PER_BYTE * bytes).min(MOST_LOADING_TIME),
        };
        let types = settings.types;
        // The tokens of the file, and those that are added, are normalized by the file's rules.
        let work = move || -> Result<(Tokenizer, T), String> {
            let parsed = text.parse::<Tokenizer>();
            let mut inner = parsed.map_err(|e| format!("no tokenizer ({e})"))?;
            settings.apply(&mut inner);
            let prepared = prepare(&mut inner, settings.fields)?;
            Ok((inner, prepared))
        };
        let loaded = watched(limits, work).map_err(|unfinished| {
            error(match unfinished {
                Unfinished::Panicked(what) => format!("it is damaged; the tokenizers library gives up ({what})"),
                given_up => format!("loading it is given up: {given_up}"),
            })
        })?;
        let (inner, prepared) = loaded.map_err(error)?;
        let guarded = Self {
            inner: Arc::new(inner),
            harmless: steps.are_harmless(),
            patterns: steps.patterns().len(),
            types,
        };
        Ok((guarded, prepared))
    }

    /// What does not work on texts.
    pub fn inner(&self) -> &Tokenizer {
        &self.inner
    }

    /// `work` on some input of `bytes` bytes; `own` makes a copy of the input for a thread.
    ///
    /// # Errors
    /// What the library says, or that it takes too long or too much.
    pub fn call<I: Send + 'static, T: Send + 'static>(
        &self,
        input: impl FnOnce() -> I,
        bytes: usize,
        work: impl FnOnce(&Tokenizer, I) -> tokenizers::Result<T> + Send + 'static,
    ) -> Result<T, TokenizerError> {
        let result = match self.limits(bytes) {
            None => guarded(|| work(&self.inner, input())).map_err(|panic| Unfinished::Panicked(panic.message)),
            Some(limits) => {
                let (inner, input) = (self.inner.clone(), input());
                watched(limits, move || work(&inner, input))
            }
        };
        match result {
            Ok(result) => result.map_err(|e| TokenizerError::Refused(e.to_string())),
            Err(Unfinished::Panicked(message)) => Err(TokenizerError::Panicked(message)),
            Err(given_up) => Err(TokenizerError::GivenUp(given_up.to_string())),
        }
    }

    /// What work on `bytes` bytes may take; nothing for what cannot take much.
    fn limits(&self, bytes: usize) -> Option<Limits> {
        let is_short = bytes.saturating_mul(self.patterns.max(1)) <= SHORT;
        let bytes = bytes as u64;
        match self.harmless {
            true if is_short => None,
            // The memory is then in proportion to the text, and other work may make the process grow meanwhile.
            true => Some(Limits {
                memory: u64::MAX,
                time: MOST_TIME + Duration::from_micros(MICROS_PER_BYTE.saturating_mul(bytes)),
            }),
            false => Some(Limits {
                memory: LEAST_MEMORY + MEMORY_PER_BYTE.saturating_mul(bytes),
                time: MOST_TIME,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A tokenizer of single letters with one split.
    fn splitting(pattern: &str) -> Value {
        let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        json!({"version": "1.0", "added_tokens": [], "pre_tokenizer": split,
            "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "a": 1}}})
    }

    fn load(json: &Value) -> Result<Guarded, ImportError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, json.to_string()).unwrap();
        Guarded::load(&path, |_, _| Ok(())).map(|(loaded, ())| loaded)
    }

    #[test]
    fn long_texts_and_dear_expressions_are_worked_on_under_limits() {
        let plain = load(&splitting(r"\w+|\s+")).unwrap();
        assert!(plain.limits(SHORT).is_none());
        assert!(plain.limits(SHORT + 1).is_some_and(|limits| limits.memory == u64::MAX));
        let dear = load(&splitting(r".*.*(?=\x00)|.")).unwrap();
        assert!(dear.limits(1).is_some_and(|limits| limits.memory < 2 * LEAST_MEMORY));
        let ids = |tokenizer: &Guarded, text: &'static str| {
            let encoding = tokenizer.call(|| text, text.len(), |inner, text| inner.encode(text, false));
            encoding.unwrap().get_ids().to_vec()
        };
        assert_eq!(ids(&plain, "a b"), [1, 0, 0]);
        assert_eq!(ids(&dear, "ab"), [1, 0]);
    }

    #[test]
    fn a_file_is_loaded_and_prepared_under_limits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, splitting("a").to_string()).unwrap();
        let (_, worker) = Guarded::load(&path, |_, _| Ok(std::thread::current().id())).unwrap();
        assert_ne!(worker, std::thread::current().id());
        let message = Guarded::load::<()>(&path, |_, _| panic!("on purpose"))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("tokenizer.json") && message.contains("on purpose"),
            "{message}"
        );
    }

    #[test]
    fn a_field_that_stands_twice_is_refused() {
        let text = splitting("a").to_string();
        let twice = text.replacen('{', r#"{"pre_tokenizer": null, "#, 1);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, twice).unwrap();
        let message = Guarded::load(&path, |_, _| Ok(())).unwrap_err().to_string();
        assert!(message.contains("duplicate field `pre_tokenizer`"), "{message}");
    }
}
