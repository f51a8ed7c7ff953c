//! What can be wrong with an adapter, a config or a file; every message names the thing and what to do.

use std::path::PathBuf;

/// Error of this crate. Nothing here panics on bad input.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A target pattern that no parameter of the model matches.
    #[error("target_modules pattern '{pattern}' matches nothing in the model; nearest names: {nearest}")]
    NoMatch {
        /// The pattern as configured.
        pattern: String,
        /// The nearest module names of the model.
        nearest: String,
    },
    /// A target whose weight is not a matrix.
    #[error("target '{site}' (from pattern '{pattern}') has shape {shape:?}; adapters act on rank-2 weights only")]
    NotAMatrix {
        /// The pattern as configured.
        pattern: String,
        /// Path of the parameter.
        site: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Sites of one sharing group that cannot share (phi, psi).
    #[error(
        "group '{group}' mixes input sizes: '{first}' has d_in {first_d_in}, '{site}' has d_in {d_in}; put them in separate groups"
    )]
    UnequalInputs {
        /// Name of the group.
        group: String,
        /// The group's first site.
        first: String,
        /// Input size of the first site.
        first_d_in: usize,
        /// The site that differs.
        site: String,
        /// Its input size.
        d_in: usize,
    },
    /// A rank that is zero or larger than the weight allows.
    #[error("rank r = {rank} is impossible for '{site}' with weight [{d_in}, {d_out}]; choose 1 to {max}")]
    BadRank {
        /// The configured rank.
        rank: usize,
        /// Path of the weight.
        site: String,
        /// Input size.
        d_in: usize,
        /// Output size.
        d_out: usize,
        /// Largest possible rank.
        max: usize,
    },
    /// Invalid regular expression.
    #[error("pattern '{pattern}' is not a valid regular expression: {message}")]
    BadPattern {
        /// The pattern as configured.
        pattern: String,
        /// What the regex parser says.
        message: String,
    },
    /// A value that a field cannot take.
    #[error("field '{field}': {message}")]
    BadField {
        /// Name of the field.
        field: String,
        /// What was found and what to do.
        message: String,
    },
    /// A file that cannot be read or written.
    #[error("cannot {action} {path}: {message}")]
    File {
        /// "read" or "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system or the parser says.
        message: String,
    },
    /// Tensors of a file that do not fit the model, all of them at once.
    #[error("{path} does not fit this model: {problems}")]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Every missing, surplus and misshapen tensor.
        problems: String,
    },
}
