//! The tensors of a vision checkpoint: one safetensors file, or shards with an index. A text tower beside the wanted one is
//! not read into memory as numbers.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use safetensors::{Dtype, SafeTensors};
use wegeft::AdapterError;
use wegeft::storage::{Stored, Tensors};

use crate::lm::shards::{INDEX, SINGLE, file_error, shard_names};

/// Name of a checkpoint in PyTorch's own format.
const TORCH: &str = "pytorch_model.bin";
/// Name of the file that says which of its shards holds which tensor.
const TORCH_INDEX: &str = "pytorch_model.bin.index.json";

/// The files of a checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Files(Vec<PathBuf>);

impl Files {
    /// Those of `path`: a folder, or one file.
    ///
    /// # Errors
    /// No weights there, an index that is malformed or names files that are missing.
    pub(crate) fn find(path: &Path) -> Result<Self, AdapterError> {
        if path.is_file() {
            return Ok(Self(vec![path.to_path_buf()]));
        }
        let files = [SINGLE, INDEX, TORCH, TORCH_INDEX].map(|name| path.join(name));
        let found = files.into_iter().find(|file| file.is_file());
        if let Some(index) = found
            .clone()
            .filter(|file| file.extension().is_some_and(|end| end == "json"))
        {
            let names = shard_names(&index)?;
            let files: Vec<PathBuf> = names.iter().map(|name| path.join(name)).collect();
            if let Some(missing) = files.iter().find(|file| !file.is_file()) {
                let message = format!(
                    "this shard, which {} names, is missing; fetch it again",
                    index.display()
                );
                return Err(file_error(missing, message));
            }
            return match files.is_empty() {
                true => Err(file_error(&index, "'weight_map' names no file; fetch it again")),
                false => Ok(Self(files)),
            };
        }
        found.map(|single| Self(vec![single])).ok_or_else(|| {
            file_error(
                path,
                format!("there is no {SINGLE}, {INDEX} or {TORCH} in it; give a folder that holds the weights"),
            )
        })
    }

    /// The first file, for messages.
    pub(crate) fn first(&self) -> &Path {
        &self.0[0]
    }

    /// The tensors whose names `wanted` accepts, as f32, under the names that they have in the files.
    ///
    /// # Errors
    /// A file that cannot be read, a tensor that is not a float.
    pub(crate) fn read(&self, wanted: impl Fn(&str) -> bool) -> Result<Tensors, AdapterError> {
        self.tensors(wanted, false)
    }

    /// All tensors of floats.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn read_floats(&self) -> Result<Tensors, AdapterError> {
        self.tensors(|_| true, true)
    }

    fn tensors(&self, wanted: impl Fn(&str) -> bool, floats_only: bool) -> Result<Tensors, AdapterError> {
        let mut tensors = Tensors::new();
        for file in &self.0 {
            let found = match file.extension().is_some_and(|extension| extension == "safetensors") {
                true => safetensors(file, &wanted, floats_only)?,
                false => return Err(torch(file)),
            };
            tensors.extend(found);
        }
        Ok(tensors)
    }
}

fn safetensors(path: &Path, wanted: impl Fn(&str) -> bool, floats_only: bool) -> Result<Tensors, AdapterError> {
    let bytes = std::fs::read(path).map_err(|e| file_error(path, e))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| file_error(path, format!("not a complete safetensors file ({e:?})")))?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter().filter(|(name, _)| wanted(name)) {
        let dtype = match view.dtype() {
            Dtype::F64 => DType::F64,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            _ if floats_only => continue,
            other => return Err(file_error(path, no_float(name, &other))),
        };
        let stored = stored(view.data().to_vec(), view.shape().to_vec(), dtype);
        tensors.insert(name.to_string(), stored);
    }
    Ok(tensors)
}

fn no_float(name: &str, dtype: &dyn std::fmt::Debug) -> String {
    format!("'{name}' has dtype {dtype:?}, expected F32, F16 or BF16")
}

/// PyTorch's own format is a pickle: a program. It is not run here.
fn torch(path: &Path) -> AdapterError {
    file_error(
        path,
        "it is in PyTorch's own format, a pickle, which is not read; convert it once with python -c \"import torch, \
         safetensors.torch as s; s.save_file({k: v.contiguous() for k, v in torch.load('pytorch_model.bin', \
         weights_only=True).items()}, 'model.safetensors')\" in its folder",
    )
}

fn stored(bytes: Vec<u8>, shape: Vec<usize>, dtype: DType) -> Stored {
    let data = TensorData::from_bytes_vec(bytes, shape.clone(), dtype);
    Stored {
        shape,
        values: data.iter::<f32>().collect(),
    }
}
