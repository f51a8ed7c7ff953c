//! What can be wrong with a model's files and with what its tokenizer is given.

use std::path::PathBuf;

use wegeft::AdapterError;

/// Why a backbone could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file that cannot be read or does not fit the model.
    #[error(transparent)]
    File(#[from] AdapterError),
    /// A config that is missing, malformed, or of a model that is not implemented.
    #[error("{path}: {message}")]
    Config {
        /// The config file.
        path: PathBuf,
        /// The field, what was found and what to do.
        message: String,
    },
    /// A requested image size that the model cannot handle.
    #[error("{message}; choose another size for {path}")]
    ImageSize {
        /// The requested size, and what is wrong with it.
        message: String,
        /// The model.
        path: PathBuf,
    },
    /// A dtype that the device cannot compute in (bf16 on Vulkan, f16 and bf16 on ndarray).
    #[error("this device does not compute in {asked}; load the weights as {fitting}")]
    Precision {
        /// The requested dtype.
        asked: &'static str,
        /// The dtypes that it computes in.
        fitting: &'static str,
    },
}

/// What is wrong with config.json, or with a field of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It is JSON, but not an object.
    #[error("expected a JSON object, found {found}")]
    NotAnObject {
        /// The JSON.
        found: String,
    },
    /// A field that must be there.
    #[error("field '{field}' is missing; expected {expected}")]
    Missing {
        /// The field.
        field: String,
        /// What it holds.
        expected: &'static str,
    },
    /// A field that is malformed, does not fit the others, or asks for something that is not implemented.
    #[error("field '{field}' {problem}")]
    Field {
        /// The field.
        field: String,
        /// What was found, and what to do.
        problem: String,
    },
    /// A number out of its range, or sizes that do not go together.
    #[error("{problem}")]
    Invalid {
        /// What was found, and what to do.
        problem: String,
    },
    /// An error in an object inside the config.
    #[error("in the {part}, {problem}")]
    Within {
        /// What the object describes.
        part: &'static str,
        /// What is wrong there.
        problem: Box<ConfigError>,
    },
    /// An error in the file at `path`.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong there.
        problem: Box<ConfigError>,
    },
    /// Labels that no classifier can have.
    #[error("in 'id2label', {0}")]
    Labels(#[from] LabelsError),
}

impl ConfigError {
    pub(crate) fn invalid(problem: impl Into<String>) -> Self {
        Self::Invalid {
            problem: problem.into(),
        }
    }

    pub(crate) fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

/// Labels that no classifier can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelsError {
    /// There are none.
    #[error("there are no labels; at least one is needed")]
    Empty,
    /// One class alone.
    #[error("'{0}' is the only label; give at least two, or make it a regression")]
    Single(String),
    /// One name for two labels.
    #[error("label '{0}' is given twice")]
    Repeated(String),
}

/// Why a tokenizer cannot encode or decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The tokenizers library refuses the text or the tokens.
    #[error("{0}")]
    Refused(String),
    /// The tokenizers library panicked.
    #[error("the tokenizers library gives up ({0})")]
    Panicked(String),
    /// The tokenizer works too long on a text, or takes too much memory. Its thread cannot be stopped and works on until the
    /// program ends, so end the program soon.
    #[error("the tokenizer is given up: {0}")]
    GivenUp(String),
    /// A token that the model's embedding does not have.
    #[error(
        "token '{token}' has id {id}, but the model's embedding has {rows} rows; leave it out, or use the tokenizer of this \
         model"
    )]
    BeyondEmbedding {
        /// Its text.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
    },
}

/// A name that is not among those that are known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is not a {what}; choose {known}")]
#[non_exhaustive]
pub struct UnknownName {
    /// The name as given.
    pub name: String,
    /// What it should name.
    pub what: &'static str,
    /// The names that there are.
    pub known: &'static str,
}

// Programs whose errors are sentences can use `?`.
impl From<ConfigError> for String {
    fn from(error: ConfigError) -> Self {
        error.to_string()
    }
}

impl From<LabelsError> for String {
    fn from(error: LabelsError) -> Self {
        error.to_string()
    }
}

impl From<TokenizerError> for String {
    fn from(error: TokenizerError) -> Self {
        error.to_string()
    }
}
