//! A text classifier by folder or hub name.

use std::collections::BTreeSet;
use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::Device;
use serde_json::Value;
use wegeft::AdapterError;
use wegeft::storage::Names;

use super::labels::Labels;
use super::model::{SequenceClassifier, Trunk};
use super::names::{Found, candidates, find, surplus};
use crate::encoder::{self, Encoder, EncoderConfig, Head, HeadConfig, Pool};
use crate::error::ImportError;
use crate::hub::{HubError, resolve_lm};
use crate::json::read_json;
use crate::lm::import::{fill, shortened, transposed, unfit_for_blocks};
use crate::lm::shards::Shards;
use crate::lm::{DecoderConfig, Family, LoadOptions};

/// Why a classifier could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClassifierError {
    /// The model could not be fetched.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Its files do not fit.
    #[error(transparent)]
    Import(#[from] ImportError),
}

impl From<AdapterError> for ClassifierError {
    fn from(error: AdapterError) -> Self {
        Self::Import(error.into())
    }
}

/// How a classifier is loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassifierOptions {
    /// Type and storage of the weights below the head; the head is of that type and never quantized.
    pub weights: LoadOptions,
    /// Its labels; those of config.json if absent.
    pub labels: Option<Labels>,
    /// Whether the output layer is initialized anew even if the file has one, for a task other than the checkpoint's.
    pub fresh_head: bool,
    /// Whether training uses the dropout of config.json (encoders).
    pub dropout: bool,
}

impl Default for ClassifierOptions {
    /// f32, the file's labels and head, dropout as in config.json.
    fn default() -> Self {
        Self {
            weights: LoadOptions::default(),
            labels: None,
            fresh_head: false,
            dropout: true,
        }
    }
}

/// A classifier, and what is known about it from loading.
#[derive(Debug, Clone)]
pub struct PretrainedClassifier {
    /// The model.
    pub model: SequenceClassifier,
    /// Its config.json.
    pub config: Value,
    /// Where its files are.
    pub folder: PathBuf,
    /// Parameters of the head that the file does not have and that start at random.
    pub fresh: Vec<String>,
    /// True if a fresh output layer replaced the file's.
    pub replaced: bool,
    /// Tensors of the file that belong to other heads and were not read.
    pub unused: Vec<String>,
}

/// An encoder without a head.
#[derive(Debug, Clone)]
pub struct PretrainedEncoder {
    /// The model.
    pub model: Encoder,
    /// Where its files are.
    pub folder: PathBuf,
    /// Tensors of the file that belong to heads and were not read.
    pub unused: Vec<String>,
}

/// Loads a text classifier: an encoder or a decoder with the head that transformers gives its family. `model` is a folder
/// in Hugging Face's layout or a name on the hub. If the checkpoint has no head, a head starts at random.
///
/// # Errors
/// A model that cannot be fetched; a missing, truncated or malformed file; an architecture or field that is not
/// implemented; a list of all tensors that are missing, unexpected or of another shape; a head with another number of labels than
/// requested.
pub fn load_classifier(
    model: &str,
    options: &ClassifierOptions,
    device: &Device,
) -> Result<PretrainedClassifier, ClassifierError> {
    options.weights.precision.check(device)?;
    let files = Files::open(model)?;
    let labels = match &options.labels {
        Some(labels) => labels.clone(),
        None => Labels::from_hf(&files.json).map_err(|problem| files.config_error(problem))?,
    };
    let outputs = labels.names().len();
    let (trunk, head, prefix, conv1d) = if EncoderConfig::is_of_encoder(&files.json) {
        let config = match options.dropout {
            true => files.encoder_config()?,
            false => files.encoder_config()?.without_dropout(),
        };
        let encoder = config.init(device);
        let prefix = encoder.family().prefix;
        let head = config
            .head
            .init(config.d_model, outputs, config.initializer_range, device);
        (Trunk::Encoder(encoder), head, prefix, false)
    } else {
        let config = files.decoder_config()?;
        let family = Family::of(&config);
        let score = HeadConfig::new(Pool::Last, "score".into()).with_out_bias(false);
        let head = score.init(config.d_model, outputs, config.initializer_range, device);
        let prefix = family.base.trim_end_matches('.');
        (Trunk::Decoder(config.init(device)), head, prefix, family.conv1d)
    };
    let activations = options.weights.precision.activations(device);
    let (trunk, trunk_names) = match trunk {
        Trunk::Encoder(encoder) => {
            let (encoder, names) = files.filled(encoder, prefix, conv1d, &options.weights, device)?;
            (Trunk::Encoder(encoder.with_activations(activations)), names)
        }
        Trunk::Decoder(decoder) => {
            let (decoder, names) = files.filled(decoder, prefix, conv1d, &options.weights, device)?;
            (Trunk::Decoder(decoder.with_activations(activations)), names)
        }
    };
    let mut in_head = find(&head, prefix, false, &files.shards);
    let replaced = options.fresh_head && take_out(&mut in_head, &head);
    let (unused, surplus) = surplus(&[&trunk_names, &in_head.names], prefix, &files.shards);
    let out = format!("'{}.", head.config().out);
    files.refuse(in_head.misshapen.iter().map(|problem| match problem.starts_with(&out) {
        true => format!("{problem} (for {outputs} labels; to train a new output layer, ask for a fresh head)"),
        false => problem.clone(),
    }))?;
    files.refuse(surplus.iter().map(|name| format!("unexpected '{name}'")))?;
    let weights = LoadOptions {
        quantize: None,
        ..options.weights
    };
    let head = fill(head, &in_head.names, false, &files.shards, &weights, device)?;
    Ok(PretrainedClassifier {
        model: SequenceClassifier::new(trunk, head, labels),
        fresh: in_head.missing.iter().map(|param| param.torch_name()).collect(),
        replaced,
        unused,
        config: files.json,
        folder: files.folder,
    })
}

/// Treats the file's output layer as missing; false if it is.
fn take_out(found: &mut Found, head: &Head) -> bool {
    let out = format!("{}.", head.config().out);
    let paths: Vec<String> = found
        .names
        .keys()
        .filter(|path| path.starts_with(&out))
        .cloned()
        .collect();
    for path in &paths {
        if let Some((param, name)) = found.names.remove(path) {
            found
                .misshapen
                .retain(|problem| !problem.starts_with(&format!("'{name}'")));
            found.missing.push(param);
        }
    }
    !paths.is_empty()
}

/// Loads an encoder without a head. `model`, `options` and errors: see [`load_classifier`].
///
/// # Errors
/// See [`load_classifier`].
pub fn load_encoder(model: &str, options: &LoadOptions, device: &Device) -> Result<PretrainedEncoder, ClassifierError> {
    options.precision.check(device)?;
    let files = Files::open(model)?;
    let model = files.encoder_config()?.init(device);
    let prefix = model.family().prefix;
    let (model, names) = files.filled(model, prefix, false, options, device)?;
    let (unused, surplus) = surplus(&[&names], prefix, &files.shards);
    files.refuse(surplus.iter().map(|name| format!("unexpected '{name}'")))?;
    Ok(PretrainedEncoder {
        model: model.with_activations(options.precision.activations(device)),
        folder: files.folder,
        unused,
    })
}

struct Files {
    folder: PathBuf,
    json: Value,
    shards: Shards,
}

impl Files {
    fn open(model: &str) -> Result<Self, ClassifierError> {
        let folder = resolve_lm(model)?;
        Ok(Self {
            json: read_json(&folder.join("config.json"))?,
            shards: Shards::open(&folder)?,
            folder,
        })
    }

    fn config_error(&self, problem: impl ToString) -> ImportError {
        ImportError::Config {
            path: self.folder.join("config.json"),
            message: problem.to_string(),
        }
    }

    fn refuse(&self, problems: impl Iterator<Item = String>) -> Result<(), AdapterError> {
        let problems: Vec<String> = problems.collect();
        match problems.is_empty() {
            true => Ok(()),
            false => Err(AdapterError::Mismatch {
                path: self.shards.path().to_path_buf(),
                problems: shortened(&problems),
            }),
        }
    }

    /// The encoder's config, whose sizes are compared with the weights before any layer is allocated.
    fn encoder_config(&self) -> Result<EncoderConfig, ImportError> {
        let config = EncoderConfig::from_hf(&self.json).map_err(|problem| self.config_error(problem))?;
        let family = encoder::family(&config.model_type).expect("from_hf knows the family");
        let named = self.json.get("n_layers").is_some();
        self.check_depth(if named { "n_layers" } else { "num_hidden_layers" }, config.depth)?;
        for size in (family.sizes)(&config) {
            let full = format!("{}.{}", family.prefix, size.tensor);
            let names = candidates(&full, family.prefix);
            let entry = names
                .into_iter()
                .find_map(|name| Some((self.shards.tensors().get(&name)?, name)));
            let Some((entry, name)) = entry else {
                continue; // named with all that is missing
            };
            let differs = |(at, (_, expected)): &(usize, &(&str, usize))| entry.shape.get(*at) != Some(expected);
            if let Some((at, (field, expected))) = size.shape.iter().enumerate().find(differs) {
                return Err(self.config_error(format!(
                    "field '{field}' is {expected}, but '{name}' in the weights has shape {:?}, where that is dimension {}; use the config and the weights of one model",
                    entry.shape,
                    at + 1
                )));
            }
        }
        Ok(config)
    }

    /// The decoder's config, without a head for words.
    fn decoder_config(&self) -> Result<DecoderConfig, ImportError> {
        if !DecoderConfig::is_of_language(&self.json) {
            let kind = self.json.get("model_type").cloned().unwrap_or(Value::Null);
            let encoders: Vec<_> = encoder::model_types().collect();
            return Err(self.config_error(format!(
                "field 'model_type' is {kind}; implemented are the encoders {} and decoders such as llama",
                encoders.join(", ")
            )));
        }
        let text = self.json.get("text_config").unwrap_or(&self.json);
        let depth = ["num_hidden_layers", "n_layer"].map(|field| text.get(field).and_then(Value::as_u64));
        let [usual, gpt2] = depth.map(|depth| depth.map(|depth| depth as usize));
        self.check_depth("num_hidden_layers", usual.unwrap_or(0))?;
        self.check_depth("n_layer", gpt2.unwrap_or(0))?;
        let config = DecoderConfig::from_hf(&self.json).map_err(|problem| self.config_error(problem))?;
        let names = ["embed_tokens.weight", "wte.weight"];
        let embedding = self.shards.tensors().iter();
        let embedding = embedding.filter(|(name, _)| names.iter().any(|end| name.ends_with(end)));
        for (name, entry) in embedding {
            let rows = entry.shape.first().copied().unwrap_or_default();
            if rows != config.vocab_size {
                return Err(self.config_error(format!(
                    "field 'vocab_size' is {}, but '{name}' in the weights has {rows} rows; use the config and the weights of one model",
                    config.vocab_size
                )));
            }
        }
        Ok(config.with_tied(true))
    }

    /// No more layers are made than the file has.
    fn check_depth(&self, field: &str, depth: usize) -> Result<(), ImportError> {
        let layer = |name: &String| -> Option<usize> {
            let mut parts = name.split('.');
            parts.find(|part| matches!(*part, "layer" | "layers" | "h"))?;
            parts.next()?.parse().ok()
        };
        let stored: BTreeSet<usize> = self.shards.tensors().keys().filter_map(layer).collect();
        match depth > stored.len() {
            true => Err(self.config_error(format!(
                "field '{field}' is {depth}, but the weights have {} layers; use the config and the weights of one model",
                stored.len()
            ))),
            false => Ok(()),
        }
    }

    fn filled<M: Module>(
        &self,
        module: M,
        prefix: &str,
        conv1d: bool,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<(M, Names), ImportError> {
        let found = find(&module, prefix, conv1d, &self.shards);
        let missing = found.missing.iter().map(|param| {
            let mut shape = param.shape.clone();
            if transposed(param, conv1d) {
                shape.reverse();
            }
            format!("missing '{}' {shape:?}", param.torch_name())
        });
        self.refuse(missing.chain(found.misshapen.iter().cloned()))?;
        if let Some(name) = options.quantize.and_then(|_| unfit_for_blocks(&found.names)) {
            return Err(self.config_error(format!(
                "'{name}' cannot be quantized in blocks of 32; load this model without --quantize"
            )));
        }
        let module = fill(module, &found.names, conv1d, &self.shards, options, device)?;
        Ok((module, found.names))
    }
}
