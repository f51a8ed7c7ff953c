//! Tensors in PyTorch's own files, such as `adapter_model.bin` and `pytorch_model.bin`. Such a file is a pickle, which is a
//! program: it is parsed and never executed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use pytorch_reader::{PytorchReader, Tensor};

use crate::checkpoint::{Stored, Tensors, check_shape, file_error, is_counter};
use crate::error::AdapterError;
use crate::guard::guarded;

/// Prefixes of weights in files in which training scripts also save other things; averaged weights first, as timm reads
/// them.
const NESTED: [&str; 4] = ["state_dict_ema.", "model_ema.", "state_dict.", "model_state_dict."];
/// First parts of names of what training scripts save beside a model.
const BESIDE: [&str; 8] = [
    "optimizer",
    "optimizer_states",
    "lr_scheduler",
    "lr_schedulers",
    "scheduler",
    "scaler",
    "amp_scaler",
    "callbacks",
];

/// One tensor of a file, not read yet.
#[derive(Debug, Clone)]
pub struct Pickled {
    tensor: Tensor,
    path: PathBuf,
}

/// The tensors of the file at `path` by name. Their elements are read one tensor at a time.
///
/// # Errors
/// A file that cannot be read, is damaged, or holds objects that are not tensors.
pub fn tensors(path: &Path) -> Result<BTreeMap<String, Pickled>, AdapterError> {
    let open = || PytorchReader::new(path).map_err(|e| e.to_string());
    let opened = guarded(open).unwrap_or_else(|panic| Err(panic.message));
    let reader = opened.map_err(|e| {
        file_error(
            "read",
            path,
            format!("it is not a complete PyTorch state_dict ({e}); copy or download it again"),
        )
    })?;
    let tensors = reader.into_tensors();
    let nested = NESTED
        .iter()
        .find(|prefix| tensors.keys().any(|name| name.starts_with(**prefix)));
    let named = |(name, tensor): (String, Tensor)| {
        let name = match nested {
            Some(prefix) => name.strip_prefix(prefix)?.to_string(),
            None if name.split_once('.').is_some_and(|(first, _)| BESIDE.contains(&first)) => return None,
            None => name,
        };
        let path = path.to_path_buf();
        Some((name, Pickled { tensor, path }))
    };
    let tensors: BTreeMap<String, Pickled> = tensors.into_iter().filter_map(named).collect();
    for (name, tensor) in &tensors {
        check_shape(name, tensor.shape()).map_err(|message| file_error("read", path, message))?;
    }
    Ok(tensors)
}

impl Pickled {
    /// Shape in PyTorch's orientation.
    pub fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        use pytorch_reader::DType as Torch;
        match self.tensor.dtype() {
            Torch::F64 => DType::F64,
            Torch::F32 => DType::F32,
            Torch::F16 => DType::F16,
            Torch::BF16 => DType::BF16,
            Torch::I64 => DType::I64,
            Torch::I32 => DType::I32,
            Torch::I16 => DType::I16,
            Torch::I8 => DType::I8,
            Torch::U64 => DType::U64,
            Torch::U32 => DType::U32,
            Torch::U16 => DType::U16,
            Torch::U8 | Torch::Bool => DType::U8,
        }
    }

    /// The elements, row-major, little-endian.
    ///
    /// # Errors
    /// A file that is damaged or can no longer be read.
    pub fn bytes(&self) -> Result<Vec<u8>, AdapterError> {
        let read = || self.tensor.read().map_err(|e| e.to_string());
        let read = guarded(read).unwrap_or_else(|panic| Err(panic.message));
        read.map_err(|e| file_error("read", &self.path, e))
    }

    /// The tensor as f32.
    ///
    /// # Errors
    /// A dtype that is not a float, and the errors of [`Pickled::bytes`].
    pub fn stored(&self) -> Result<Stored, AdapterError> {
        let dtype = self.dtype();
        if !matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16) {
            let message = format!("'{}' has dtype {dtype:?}, expected F32, F16 or BF16", self.tensor.name);
            return Err(file_error("read", &self.path, message));
        }
        let shape = self.shape().to_vec();
        let data = TensorData::from_bytes_vec(self.bytes()?, shape.clone(), dtype);
        Ok(Stored {
            shape,
            values: data.iter::<f32>().collect(),
        })
    }
}

/// All tensors of the file at `path`, as f32; without the batch counts of PyTorch's BatchNorm.
///
/// # Errors
/// Those of [`tensors`] and [`Pickled::stored`].
pub fn read_tensors(path: &Path) -> Result<Tensors, AdapterError> {
    let tensors = tensors(path)?.into_iter().filter(|(name, _)| !is_counter(name));
    tensors.map(|(name, tensor)| Ok((name, tensor.stored()?))).collect()
}
