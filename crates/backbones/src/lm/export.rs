//! Writing a decoder as a Hugging Face folder: config.json and model.safetensors.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use wegeft::AdapterError;
use wegeft::site::{self, ParamInfo};
use wegeft::storage::write_then_rename;

use super::config::Family;
use super::decoder::Decoder;
use super::import::{Precision, transposed};
use super::shards::SINGLE;

/// Writes `model` and its config.json (the one that [`super::DecoderConfig::from_hf`] read) into `folder`, which is
/// made if absent; weights as `precision`.
///
/// # Errors
/// A folder or file that cannot be written.
pub fn save_lm(model: &Decoder, config: &Value, folder: &Path, precision: Precision) -> Result<(), AdapterError> {
    let error = |path: &Path, message: String| AdapterError::File {
        action: "write",
        path: path.to_path_buf(),
        message,
    };
    std::fs::create_dir_all(folder).map_err(|e| error(folder, e.to_string()))?;
    let mut collector = Collector {
        path: Vec::new(),
        conv1d: model.config().family == Family::Gpt2,
        infos: site::params(model)
            .into_iter()
            .map(|info| (info.path.clone(), info))
            .collect(),
        dtype: precision.dtype(),
        tensors: Vec::new(),
    };
    model.visit(&mut collector);
    let path = folder.join(SINGLE);
    let dtype = match precision {
        Precision::F32 => Dtype::F32,
        Precision::Bf16 => Dtype::BF16,
        Precision::F16 => Dtype::F16,
    };
    let views = collector
        .tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name.as_str(), TensorView::new(dtype, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|e| error(&path, e.to_string()))?;
    let metadata = [("format".to_string(), "pt".to_string())].into();
    let packed = safetensors::serialize(views, Some(metadata)).map_err(|e| error(&path, e.to_string()))?;
    write_then_rename(&path, &packed)?;
    let text = serde_json::to_string_pretty(config).unwrap_or_default();
    write_then_rename(&folder.join("config.json"), text.as_bytes())
}

struct Collector {
    path: Vec<String>,
    conv1d: bool,
    infos: BTreeMap<String, ParamInfo>,
    dtype: DType,
    /// Name, shape and bytes.
    tensors: Vec<(String, Vec<usize>, Vec<u8>)>,
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
        let data = tensor.cast(self.dtype).into_data();
        let shape = data.shape().to_vec();
        self.tensors
            .push((info.torch_name(), shape, data.into_bytes().to_vec()));
    }
}
