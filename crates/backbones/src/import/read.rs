//! The tensors of a vision checkpoint: one file or shards with an index, safetensors or PyTorch's own. A text tower beside
//! the wanted one is not read into memory as numbers.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use safetensors::{Dtype, SafeTensors};
use wegeft::AdapterError;
use wegeft::pickle;
use wegeft::storage::{Stored, Tensors, check_header, check_shape};

use crate::lm::shards::{self, file_error, is_pickled};

/// The files of a checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Files(Vec<PathBuf>);

impl Files {
    /// Those of `path`: a folder, or one file.
    ///
    /// # Errors
    /// No weights there, an index that is malformed or names files that are missing.
    pub(crate) fn find(path: &Path) -> Result<Self, AdapterError> {
        match path.is_file() {
            true => Ok(Self(vec![path.to_path_buf()])),
            false => shards::files(path).map(Self),
        }
    }

    /// The first file, for messages.
    pub(crate) fn first(&self) -> &Path {
        &self.0[0]
    }

    /// The tensors whose names `wanted` accepts, as f32, under the names that they have in the files.
    ///
    /// # Errors
    /// A file that cannot be read, a tensor that is not a float or has NaN or infinite elements.
    pub(crate) fn read(&self, wanted: impl Fn(&str) -> bool) -> Result<Tensors, AdapterError> {
        let tensors = self.tensors(wanted, false)?;
        match tensors.iter().find(|(_, stored)| !stored.is_finite()) {
            Some((name, _)) => Err(file_error(self.first(), shards::not_finite(name))),
            None => Ok(tensors),
        }
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
            let found = match is_pickled(file) {
                true => pickled(file, &wanted, floats_only)?,
                false => safetensors(file, &wanted, floats_only)?,
            };
            tensors.extend(found);
        }
        Ok(tensors)
    }
}

fn safetensors(path: &Path, wanted: impl Fn(&str) -> bool, floats_only: bool) -> Result<Tensors, AdapterError> {
    let bytes = files::read_regular(path).map_err(|e| file_error(path, e))?;
    check_header(&bytes).map_err(|message| file_error(path, message))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| file_error(path, format!("not a complete safetensors file ({e:?})")))?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter().filter(|(name, _)| wanted(name)) {
        check_shape(name, view.shape()).map_err(|message| file_error(path, message))?;
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

fn pickled(path: &Path, wanted: impl Fn(&str) -> bool, floats_only: bool) -> Result<Tensors, AdapterError> {
    let is_float = |dtype: DType| matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16);
    let tensors = pickle::tensors(path)?.into_iter().filter(|(name, _)| wanted(name));
    tensors
        .filter(|(_, tensor)| !floats_only || is_float(tensor.dtype()))
        .map(|(name, tensor)| Ok((name, tensor.stored()?)))
        .collect()
}

fn stored(bytes: Vec<u8>, shape: Vec<usize>, dtype: DType) -> Stored {
    let data = TensorData::from_bytes_vec(bytes, shape.clone(), dtype);
    Stored {
        shape,
        values: data.iter::<f32>().collect(),
    }
}

#[cfg(test)]
mod tests {
    use wegeft::storage::write_tensors;

    use super::*;

    #[test]
    fn a_tensor_with_more_dimensions_than_any_weight_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let read = |dimensions: usize| {
            let tensor = Stored {
                shape: vec![1; dimensions],
                values: vec![1.0],
            };
            write_tensors(&path, &Tensors::from([("w".to_string(), tensor)])).unwrap();
            Files::find(dir.path()).unwrap().read_floats()
        };
        assert_eq!(read(8).unwrap()["w"].shape.len(), 8);
        let message = read(9).unwrap_err().to_string();
        assert!(message.contains("'w' has 9 dimensions"), "{message}");
    }
}
