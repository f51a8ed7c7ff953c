//! A pretrained decoder from a Hugging Face folder: config.json, model.safetensors (or shards).

use std::path::Path;
use std::str::FromStr;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::quantization::{QuantScheme, QuantValue, ScaleDtype};
use burn::tensor::{Device, Tensor};
use serde_json::Value;
use wegeft::AdapterError;
use wegeft::site::{self, ParamInfo};
use wegeft::storage::Names;

use super::config::DecoderConfig;
use super::decoder::Decoder;
use super::family::Family;
use super::generation_config::GenerationConfig;
use super::precision::Precision;
use super::shards::{Entry, Shards};
use crate::error::{ImportError, UnknownName};
use crate::json::read_json;

/// How the weights of linear layers are stored: symmetric, with one f32 scale per 32 neighbouring weights. On flex,
/// products read them as they are. For frozen weights only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantize {
    /// 8 bits per weight.
    Int8,
    /// 4 bits per weight; the CPU backends still keep each in a byte.
    Int4,
}

impl FromStr for Quantize {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "int8" => Ok(Self::Int8),
            "int4" => Ok(Self::Int4),
            other => Err(UnknownName {
                name: other.to_string(),
                what: "quantization",
                known: "int8 or int4",
            }),
        }
    }
}

/// Weights that share a scale.
const BLOCK: usize = 32;

impl Quantize {
    fn scheme(self, device: &Device) -> QuantScheme {
        let value = match self {
            Self::Int8 => QuantValue::Q8S,
            Self::Int4 => QuantValue::Q4S,
        };
        // The device's own scheme: how values are packed differs between backends.
        let own = device.settings().quantization.scheme;
        own.with_value(value).per_block([BLOCK as u8], ScaleDtype::F32)
    }
}

/// How a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// Type of the weights.
    pub precision: Precision,
    /// Storage of the linear layers' weights, the head's excepted.
    pub quantize: Option<Quantize>,
}

impl Default for LoadOptions {
    /// f32, not quantized.
    fn default() -> Self {
        Self {
            precision: Precision::F32,
            quantize: None,
        }
    }
}

/// A pretrained decoder, and what its files say about generation.
#[derive(Debug, Clone)]
pub struct PretrainedLm {
    /// The model.
    pub model: Decoder,
    /// Special tokens, and how its authors sample from it.
    pub generation: GenerationConfig,
    /// Warnings about its files, one sentence each: fields that are not read, a tie that the tensors contradict.
    pub notes: Vec<String>,
}

/// Loads a decoder from a folder in Hugging Face's layout. Tensors are read from disk one by one, each straight into its
/// final type and orientation.
///
/// # Errors
/// A missing, truncated or malformed file, a missing shard, an architecture or field that is not implemented, tensors that
/// are missing, unexpected or of another shape (the message lists them), a type that the device does not compute in.
pub fn load_lm(folder: &Path, options: &LoadOptions, device: &Device) -> Result<PretrainedLm, ImportError> {
    options.precision.check(device)?;
    let (json, mut config, ignored) = config(folder)?;
    let error = |message: String| config_error(folder, message);
    let mut notes = Vec::new();
    if !ignored.is_empty() {
        notes.push(format!(
            "{}: fields that this model does not read are ignored: {}",
            folder.join("config.json").display(),
            ignored.join(", ")
        ));
    }
    let shards = Shards::open(folder)?;
    // Nothing is built that the file cannot fill.
    if config.layers.len() > shards.tensors().len() {
        return Err(error(format!(
            "field 'num_hidden_layers' is {}, but the weights have only {} tensors; use the config and the weights of one model",
            config.layers.len(),
            shards.tensors().len()
        )));
    }
    notes.extend(untie(&mut config, &shards)?);
    let model = config.init(device);
    let names = names(&model, &shards);
    check_vocabulary(&config, &shards, &names).map_err(error)?;
    let problems = problems(&model, &names, &shards);
    if !problems.is_empty() {
        return Err(AdapterError::Mismatch {
            path: shards.path().to_path_buf(),
            problems: shortened(&problems),
        }
        .into());
    }
    if let Some(name) = options.quantize.and_then(|_| unfit_for_blocks(&names)) {
        return Err(error(format!(
            "'{name}' cannot be quantized in blocks of {BLOCK}; load this model without --quantize"
        )));
    }
    let model = fill(model, &names, Family::of(&config).conv1d, &shards, options, device)?;
    Ok(PretrainedLm {
        model: model.with_activations(options.precision.activations(device)),
        generation: GenerationConfig::load(folder, &json)?,
        notes,
    })
}

/// `model` with the parameters that `names` lists, whose shapes fit, read from `shards`. `conv1d`: linear weights are
/// stored as `[d_in, d_out]`.
///
/// # Errors
/// A file that cannot be read, or a type that is not a float.
pub(crate) fn fill<M: Module>(
    model: M,
    names: &Names,
    conv1d: bool,
    shards: &Shards,
    options: &LoadOptions,
    device: &Device,
) -> Result<M, AdapterError> {
    let mut loader = Loader {
        path: Vec::new(),
        names,
        conv1d,
        shards,
        options: *options,
        device,
        failed: None,
    };
    let model = model.map(&mut loader);
    match loader.failed {
        Some(error) => Err(error),
        None => Ok(model),
    }
}

/// The shape of the decoder in `folder`, by its config.json.
///
/// # Errors
/// A file that is missing or malformed, an architecture or field that is not implemented.
pub fn lm_config(folder: &Path) -> Result<DecoderConfig, ImportError> {
    config(folder).map(|(_, config, _)| config)
}

fn config(folder: &Path) -> Result<(Value, DecoderConfig, Vec<String>), ImportError> {
    let json = read_json(&folder.join("config.json"))?;
    let (config, ignored) =
        DecoderConfig::read_hf(&json).map_err(|problem| config_error(folder, problem.to_string()))?;
    Ok((json, config, ignored))
}

fn config_error(folder: &Path, message: String) -> ImportError {
    ImportError::Config {
        path: folder.join("config.json"),
        message,
    }
}

/// The type that the weights in `folder` are stored in, most of them if they differ.
///
/// # Errors
/// A missing, truncated or malformed file.
pub fn stored_precision(folder: &Path) -> Result<Precision, ImportError> {
    Ok(Shards::open(folder)?.precision())
}

/// Path in the module -> (parameter, name in the checkpoint).
fn names(model: &Decoder, shards: &Shards) -> Names {
    let config = model.config();
    site::params(model)
        .into_iter()
        .map(|param| {
            let full = param.torch_name();
            let found = on_disk(&full, Family::of(config).base, shards);
            // A tied checkpoint may have either of the two.
            let found = found.or_else(|| {
                let embedding = config.tied && EMBEDDINGS.contains(&full.as_str());
                embedding.then(|| on_disk(HEAD, "", shards)).flatten()
            });
            (param.path.clone(), (param, found.unwrap_or(full)))
        })
        .collect()
}

const EMBEDDINGS: [&str; 2] = ["model.embed_tokens.weight", "transformer.wte.weight"];
const HEAD: &str = "lm_head.weight";

/// The name that a checkpoint has for `full`: files of the bare model leave the prefix `base` out; Gemma 3's with images
/// put it deeper.
fn on_disk(full: &str, base: &str, shards: &Shards) -> Option<String> {
    let bare = full.strip_prefix(base).filter(|_| !base.is_empty());
    let others = bare.map(|bare| [bare.to_string(), format!("model.language_model.{bare}")]);
    let names = others.into_iter().flatten();
    let mut names = names.chain([format!("language_model.{full}"), full.to_string()]);
    names.find(|name| shards.tensors().contains_key(name))
}

/// A checkpoint whose head differs from its embedding is not tied, whatever its config says: transformers sees it too.
fn untie(config: &mut DecoderConfig, shards: &Shards) -> Result<Option<String>, AdapterError> {
    let base = Family::of(config).base;
    let embedding = EMBEDDINGS.iter().find_map(|name| on_disk(name, base, shards));
    let both = embedding.zip(on_disk(HEAD, "", shards)).filter(|_| config.tied);
    let Some((embedding, head)) = both else {
        return Ok(None);
    };
    if shards.equal(&embedding, &head)? {
        return Ok(None);
    }
    config.tied = false;
    Ok(Some(format!(
        "{}: '{head}' differs from '{embedding}', so they are not tied although config.json says 'tie_word_embeddings'",
        shards.path().display()
    )))
}

/// The first of many problems, and how many more there are.
pub(crate) fn shortened(problems: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = problems[..problems.len().min(SHOWN)].join("; ");
    match problems.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

/// True for weights that the file stores transposed.
pub(crate) fn transposed(param: &ParamInfo, conv1d: bool) -> bool {
    param.is_linear_weight() && (!conv1d || matches!(param.module(), "lm_head" | "score"))
}

fn check_vocabulary(config: &DecoderConfig, shards: &Shards, names: &Names) -> Result<(), String> {
    let name = EMBEDDINGS
        .iter()
        .find_map(|path| names.get(*path))
        .map(|(_, name)| name);
    let rows = |name: &String| {
        shards
            .tensors()
            .get(name)
            .and_then(|entry| entry.shape.first().copied())
    };
    match name.and_then(|name| Some((name, rows(name)?))) {
        Some((name, rows)) if rows != config.vocab_size => Err(format!(
            "field 'vocab_size' is {}, but '{name}' in the weights has {rows} rows; use the config and the weights of one model",
            config.vocab_size
        )),
        _ => Ok(()),
    }
}

/// Every missing, surplus and misshapen tensor, in words.
fn problems(model: &Decoder, names: &Names, shards: &Shards) -> Vec<String> {
    let conv1d = Family::of(model.config()).conv1d;
    let mut problems = Vec::new();
    let mut surplus: std::collections::BTreeMap<&String, &Entry> = shards.tensors().iter().collect();
    for (param, name) in names.values() {
        let mut expected = param.shape.clone();
        if transposed(param, conv1d) {
            expected.reverse();
        }
        match surplus.remove(name) {
            None => problems.push(format!("missing '{name}' {expected:?}")),
            Some(entry) if entry.shape != expected => {
                problems.push(format!("'{name}' has shape {:?}, expected {expected:?}", entry.shape));
            }
            Some(_) => {}
        }
    }
    // Buffers that older files carry, a second copy of a tied embedding, and the part that sees images.
    let known = |name: &str| {
        name.contains("vision_tower.")
            || name.contains("multi_modal_projector.")
            || name.ends_with("rotary_emb.inv_freq")
            || name.ends_with(".attn.bias")
            || name.ends_with(".attn.masked_bias")
            || (model.config().tied && name.ends_with(HEAD))
    };
    let surplus = surplus.into_keys().filter(|name| !known(name));
    problems.extend(surplus.map(|name| format!("unexpected '{name}'")));
    problems
}

fn is_quantized(param: &ParamInfo) -> bool {
    param.is_linear_weight() && param.module() != "lm_head"
}

pub(crate) fn unfit_for_blocks(names: &Names) -> Option<&str> {
    let unfit = |param: &ParamInfo| is_quantized(param) && !param.shape[1].is_multiple_of(BLOCK);
    names
        .values()
        .find(|(param, _)| unfit(param))
        .map(|(_, name)| name.as_str())
}

struct Loader<'a> {
    path: Vec<String>,
    names: &'a Names,
    conv1d: bool,
    shards: &'a Shards,
    options: LoadOptions,
    device: &'a Device,
    failed: Option<AdapterError>,
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        // The random values of `param` are made on first use: replaced here, they never exist.
        let found = self.names.get(&self.path.join("."));
        let Some((info, name)) = found.filter(|_| self.failed.is_none()) else {
            return param;
        };
        let precision = self.options.precision;
        let data = match self.shards.read(name, transposed(info, self.conv1d), precision) {
            Ok(data) => data,
            Err(error) => {
                self.failed = Some(error);
                return param;
            }
        };
        let tensor = Tensor::<D>::from_data(data, (self.device, precision.dtype()));
        match self.options.quantize.filter(|_| is_quantized(info)) {
            Some(quantize) => Param::initialized(param.id, tensor.quantize_dynamic(&quantize.scheme(self.device))),
            None => {
                let mut loaded = Param::from_tensor(tensor);
                loaded.id = param.id;
                loaded
            }
        }
    }
}
