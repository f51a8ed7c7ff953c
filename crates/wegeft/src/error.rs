//! What can be wrong with an adapter, a config or a file. Every message names what was found and what to do.

use std::path::PathBuf;

use crate::kind::SiteKind;

/// Error of this crate. Bad configs, names and files give an error, not a panic.
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
    /// A target pattern of which other fields exclude every match.
    #[error(
        "target_modules: every module that '{pattern}' matches is excluded by {}; remove the pattern, or exclude less", .fields.join(" or ")
    )]
    LeftOut {
        /// The pattern as configured.
        pattern: String,
        /// The fields that exclude them.
        fields: Vec<&'static str>,
    },
    /// A method on all places of its kind, of which other fields exclude every one.
    #[error("every place where this method could act is excluded by {}; exclude less", .fields.join(" or "))]
    AllLeftOut {
        /// The fields that exclude them.
        fields: Vec<&'static str>,
    },
    /// A parameter that two sites edit.
    #[error("'{path}' is adapted twice; name it once")]
    AdaptedTwice {
        /// Path of the parameter.
        path: String,
    },
    /// A model that already carries an adapter: a bound one, or one with Burn's own LoRA.
    #[error(
        "'{path}' already carries an adapter; adapt the model that the adapter was made from, or one with the adapter in its weights (Adapted::merge, or Burn's materialize)"
    )]
    AlreadyAdapted {
        /// Path of the parameter.
        path: String,
    },
    /// Factors of a method of a user that the library cannot hold.
    #[error("{method} has {problem} at '{site}'; {advice}")]
    BadFactors {
        /// Name of the method.
        method: String,
        /// The module of the group's first site.
        site: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
    /// A mixed batch without names.
    #[error("bind_rows was given no names; give one adapter name per example of the batch")]
    NoRows,
    /// Two tensors of an adapter that would have one key in its file.
    #[error("'{first}' and '{second}' would both be stored under the key '{key}'; adapt or train only one of them")]
    SameKey {
        /// The key.
        key: String,
        /// Path of one of them in the adapted model: `model.…` or `bank.…`.
        first: String,
        /// Path of the other.
        second: String,
    },
    /// A parameter that is edited and also trained in full, so that its edit would be pointless or wrong.
    #[error("'{path}' is both adapted and trained in full by {field}; choose one of the two")]
    TrainedTwice {
        /// Path of the parameter.
        path: String,
        /// The field or the method that trains it in full.
        field: String,
    },
    /// A method without factors and without modules to save.
    #[error("{method} would train nothing: it has no factors, and modules_to_save is empty; name the head there")]
    NothingTrained {
        /// Name of the method.
        method: String,
    },
    /// A method that finds nothing in the model to act on.
    #[error("the model has no {what}")]
    NoPlace {
        /// What is missing.
        what: &'static str,
    },
    /// A method that edits hooks, in a model whose hooks have other names.
    #[error(
        "the model has no wegeft::Hook named '{name}', the default of this method; set target_modules to some of its hooks: {}", .hooks.join(", ")
    )]
    NoHook {
        /// The name that the method looks for.
        name: String,
        /// The hooks that the model has, with a star for the layer number.
        hooks: Vec<String>,
    },
    /// A prompt method, on a model without the token hook that it needs.
    #[error(
        "the model has no wegeft::TokenHook named '{name}', where {name} tuning adds its virtual tokens; add one, or use another method"
    )]
    NoTokenHook {
        /// The hook's name, which is that of the method without "tuning".
        name: &'static str,
    },
    /// A weight of a kind that the method cannot adapt.
    #[error("{method} cannot adapt '{site}', which is {kind}; exclude it, or use LoRA")]
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
        "target '{site}' (from pattern '{pattern}') belongs to a {kind} and has shape {shape:?}; adapters act on rank-2 weights, kernels of Conv1d and Conv2d, and 3-D weights that target_parameters names"
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
    /// Sites of one group whose sizes do not allow shared factors.
    #[error(
        "group '{group}' mixes sizes: '{first}' has {size} = {first_size}, '{site}' has {size} = {site_size}; put them in separate groups"
    )]
    Unequal {
        /// Name of the group.
        group: String,
        /// What must be equal: d_in, d_out or r.
        size: &'static str,
        /// The group's first site.
        first: String,
        /// Size of the first site.
        first_size: usize,
        /// The site that differs.
        site: String,
        /// Size of that site.
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
    /// A pattern that is not a valid regular expression, or that takes too much memory or time.
    #[error("pattern '{pattern}' cannot be used: {message}")]
    BadPattern {
        /// The pattern as configured, cut if it is long.
        pattern: String,
        /// What is wrong with it.
        message: String,
    },
    /// A setting that a field cannot have.
    #[error("field '{field}': {message}")]
    BadField {
        /// Name of the field.
        field: String,
        /// What was found and what to do.
        message: String,
    },
    /// A quantized weight that would be trained in full.
    #[error(
        "'{path}' is quantized, so neither modules_to_save nor full fine-tuning can train it; adapt it, or load it as a float"
    )]
    Quantized {
        /// Path of the parameter.
        path: String,
    },
    /// A tied weight (one weight in two places of the model) that would be trained in full.
    #[error(
        "'{path}' and '{other}' are two places of one tied weight, and an optimizer would update only one of them; adapt it instead, or give each place a parameter of its own"
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
    /// An adapter that acts on activations only, which no weight can hold.
    #[error(
        "{method} acts on activations at '{site}', where there is no weight or bias to merge it into; keep the adapter bound"
    )]
    NotMergeable {
        /// Name of the method.
        method: String,
        /// The first place that it edits.
        site: String,
    },
    /// A merge or unmerge that would give NaN or infinite elements.
    #[error(
        "weight '{site}' would get {count} NaN or infinite elements; the adapter or the weight is damaged, or the sum overflows the weight's dtype; check the files, or load the weights as f32"
    )]
    NotFinite {
        /// Path of the weight.
        site: String,
        /// How many of its elements.
        count: usize,
    },
    /// A merge that cannot be undone, because it does not determine the weight before it.
    #[error("method {method} at '{site}': {message}")]
    NotInvertible {
        /// Name of the method.
        method: String,
        /// Path of the weight.
        site: String,
        /// Why, and what to do.
        message: String,
    },
    /// An adapter that cannot be written as standard LoRA.
    #[error("{method} cannot be written as LoRA: {reason}")]
    NoLoraForm {
        /// Name of the method.
        method: String,
        /// Path of the first parameter without a LoRA form; empty if the adapter has no factors.
        site: String,
        /// Why, and what to do instead.
        reason: String,
    },
    /// An adapter that belongs to another backbone, or to one whose weights were changed.
    #[error(
        "adapter '{name}' belongs to another backbone: its '{path}' is not this backbone's; load it with Adapters::load, or make it from an unchanged clone of this backbone"
    )]
    OtherBackbone {
        /// The name as given.
        name: String,
        /// A frozen parameter that differs.
        path: String,
    },
    /// The name of an adapter that does not exist.
    #[error("there is no adapter '{name}'; {}", known_adapters(.known))]
    UnknownAdapter {
        /// The name as given.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The name of another adapter.
    #[error("the name '{name}' is taken; remove that adapter first, or choose another name")]
    NameTaken {
        /// The name as given.
        name: String,
    },
    /// The name that stands for the backbone.
    #[error("'{name}' stands for the backbone itself; choose another name")]
    ReservedName {
        /// The name as given.
        name: String,
    },
    /// An adapter that cannot be used as asked.
    #[error("adapter '{name}': {message}")]
    Adapter {
        /// The name as given.
        name: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A file whose tensors do not fit the model.
    #[error("{path} does not fit this model: {problems}")]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Every missing or unexpected tensor and every wrong shape.
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

fn known_adapters(known: &[String]) -> String {
    match known.is_empty() {
        true => "none was added yet".to_string(),
        false => format!("known are {}", known.join(", ")),
    }
}
