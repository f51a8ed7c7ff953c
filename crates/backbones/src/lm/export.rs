//! Writing a decoder as a Hugging Face folder: config.json and model.safetensors.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, View};
use serde_json::Value;
use wegeft::AdapterError;
use wegeft::site::{self, ParamInfo};

use super::config::DecoderConfig;
use super::decoder::Decoder;
use super::family::Family;
use super::import::transposed;
use super::precision::Precision;
use super::shards::SINGLE;

/// Writes `model` and its config.json (the one that [`super::DecoderConfig::from_hf`] read, with the size of the vocabulary
/// and the tie of the head that `model` has) into `folder`, which is made if absent; weights as `precision`, converted and
/// written one at a time. Both replace older ones together: while they do, there is no config.json, so that nothing is
/// loaded.
///
/// # Errors
/// A folder or file that cannot be written.
pub fn save_lm(model: &Decoder, config: &Value, folder: &Path, precision: Precision) -> Result<(), AdapterError> {
    let text = serde_json::to_string_pretty(&updated(config, model)).unwrap_or_default();
    save(model, Family::of(model.config()).conv1d, &text, folder, precision)
}

/// Writes model.safetensors and config.json, whose text is `config`, into `folder`, which is made if absent. `conv1d`: linear
/// weights are stored as `[d_in, d_out]`.
///
/// # Errors
/// A folder or file that cannot be written.
pub(crate) fn save<M: Module>(
    model: &M,
    conv1d: bool,
    config: &str,
    folder: &Path,
    precision: Precision,
) -> Result<(), AdapterError> {
    const CONFIG: &str = "config.json";
    let staging = files::Staging::new(folder).map_err(|e| error(folder, e))?;
    let made = staging.path();
    write_weights(model, conv1d, &made.join(SINGLE), precision).map_err(|e| error(&folder.join(SINGLE), e))?;
    files::replace(&made.join(CONFIG), config.as_bytes()).map_err(|e| error(&folder.join(CONFIG), e))?;
    staging.put(Some(CONFIG)).map_err(|e| error(folder, e))
}

fn error(path: &Path, error: impl ToString) -> AdapterError {
    AdapterError::File {
        action: "write",
        path: path.to_path_buf(),
        message: error.to_string(),
    }
}

fn write_weights<M: Module>(model: &M, conv1d: bool, path: &Path, precision: Precision) -> io::Result<()> {
    let mut collector = Collector {
        path: Vec::new(),
        conv1d,
        infos: site::params(model)
            .into_iter()
            .map(|info| (info.path.clone(), info))
            .collect(),
        precision,
        weights: Vec::new(),
    };
    model.visit(&mut collector);
    let metadata = [("format".to_string(), "pt".to_string())].into();
    files::replace_by(path, |temporary| {
        safetensors::serialize_to_file(collector.weights, Some(metadata), temporary).map_err(|e| match e {
            SafeTensorError::IoError(e) => e,
            e => io::Error::other(e),
        })
    })
}

/// `config` with what a model may have otherwise than its config.json said.
fn updated(config: &Value, model: &Decoder) -> Value {
    let mut config = config.clone();
    let (said, own) = (DecoderConfig::from_hf(&config), model.config());
    if let (Some(fields), Ok(said)) = (config.as_object_mut(), said) {
        if said.vocab_size != own.vocab_size {
            fields.insert("vocab_size".into(), own.vocab_size.into());
        }
        if said.tied != own.tied {
            fields.insert("tie_word_embeddings".into(), own.tied.into());
        }
    }
    config
}

/// A weight that becomes bytes when it is written.
struct Weight {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Box<dyn Fn() -> Vec<u8>>,
}

impl View for Weight {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        (self.bytes)().into()
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

struct Collector {
    path: Vec<String>,
    conv1d: bool,
    infos: BTreeMap<String, ParamInfo>,
    precision: Precision,
    weights: Vec<(String, Weight)>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(info) = self.infos.get(&self.path.join(".")) else {
            return;
        };
        let tensor = param.base();
        let tensor = if transposed(info, self.conv1d) {
            tensor.swap_dims(0, D - 1)
        } else {
            tensor
        };
        let (dtype, named) = match self.precision {
            Precision::F32 | Precision::Flex32 => (DType::F32, Dtype::F32),
            Precision::Bf16 => (DType::BF16, Dtype::BF16),
            Precision::F16 => (DType::F16, Dtype::F16),
        };
        let weight = Weight {
            dtype: named,
            shape: tensor.dims().to_vec(),
            bytes: Box::new(move || tensor.clone().cast(dtype).into_data().into_bytes().to_vec()),
        };
        self.weights.push((info.torch_name(), weight));
    }
}
