//! What can be wrong with an adapter, a config or a file; every message names the thing and what to do.

use std::path::PathBuf;

use crate::site::SiteKind;

/// Error of this crate. Nothing here panics on bad input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// A pattern that no parameter of the model matches.
    #[error("{field}: '{pattern}' matches nothing in the model; nearest names: {nearest}")]
    NoMatch {
        /// The field that holds the pattern.
        field: &'static str,
        /// The pattern as configured.
        pattern: String,
        /// The nearest module names of the model.
        nearest: String,
    },
    /// A target pattern whose every match another field leaves out.
    #[error("target_modules: '{pattern}' matches modules of the model, but {field} leaves out all of them")]
    LeftOut {
        /// The pattern as configured.
        pattern: String,
        /// The field that leaves them out.
        field: &'static str,
    },
    /// A method without a place in the model.
    #[error("the model has no {what}")]
    NoPlace {
        /// What is missing.
        what: &'static str,
    },
    /// A method on hooks in a model that has other ones.
    #[error(
        "the model has no wegeft::Hook named '{name}', which this method edits; name hooks that it has in target_modules"
    )]
    NoHook {
        /// The name that the method looks for.
        name: String,
    },
    /// A prompt method on a model without a place for its tokens.
    #[error("the model has no wegeft::TokenHook named '{name}', where this method adds its virtual tokens")]
    NoTokenHook {
        /// The name that the field has to have.
        name: &'static str,
    },
    /// A weight of a kind that the method does not adapt.
    #[error("{method} does not adapt '{site}', which is of kind {kind:?}; leave it out or use LoRA")]
    NotTaken {
        /// Name of the method.
        method: String,
        /// Path of the parameter.
        site: String,
        /// Its kind.
        kind: SiteKind,
    },
    /// A target that no method can adapt.
    #[error(
        "target '{site}' (from pattern '{pattern}') is the weight of a {kind}, of shape {shape:?}; adapters act on rank-2 weights, kernels of Conv1d and Conv2d, and target_parameters"
    )]
    NotAMatrix {
        /// The pattern as configured.
        pattern: String,
        /// Path of the parameter.
        site: String,
        /// The type of the module that holds it.
        kind: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Sites of one sharing group that cannot share (phi, psi).
    #[error(
        "group '{group}' mixes sizes: '{first}' has {size} {first_size}, '{site}' has {size} {site_size}; put them in separate groups"
    )]
    Unequal {
        /// Name of the group.
        group: String,
        /// What must be equal: d_in, d_out or r.
        size: &'static str,
        /// The group's first site.
        first: String,
        /// Its size.
        first_size: usize,
        /// The site that differs.
        site: String,
        /// Its size.
        site_size: usize,
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
    /// A quantized weight that is to be trained in full.
    #[error(
        "'{path}' is quantized: it gets no gradient and cannot be trained in full; leave it out of modules_to_save, or adapt it"
    )]
    Quantized {
        /// Path of the parameter.
        path: String,
    },
    /// A weight in two places of the model that is to be trained in full.
    #[error(
        "'{path}' and '{other}' are one weight: an optimizer would update only one of them; leave both out of modules_to_save"
    )]
    Tied {
        /// Path of the parameter.
        path: String,
        /// Its path elsewhere.
        other: String,
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
    /// What acts on activations alone has no weight to merge into.
    #[error(
        "{method} acts on activations at '{site}', which has no weight or bias to merge it into; keep the adapter bound"
    )]
    NotMergeable {
        /// Name of the method.
        method: String,
        /// The first place that it edits.
        site: String,
    },
    /// A merge or unmerge that gives NaN or infinite elements.
    #[error(
        "weight '{site}' would get {count} elements that are not finite; the adapter or the weight is damaged, or too large for its type"
    )]
    NotFinite {
        /// Path of the weight.
        site: String,
        /// How many of its elements.
        count: usize,
    },
    /// A merge that does not determine the weight before it.
    #[error("method {method} at '{site}': {message}")]
    NotInvertible {
        /// Name of the method.
        method: String,
        /// Path of the weight.
        site: String,
        /// Why, and what to do.
        message: String,
    },
    /// A name that no adapter has, or one that is taken.
    #[error("adapter '{name}': {message}")]
    Adapter {
        /// The name as given.
        name: String,
        /// What is wrong and what to do.
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

impl AdapterError {
    pub(crate) fn bad_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::BadField {
            field: field.into(),
            message: message.into(),
        }
    }
}
