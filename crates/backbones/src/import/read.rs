//! Some tensors of a safetensors file: a text tower beside the wanted one is not read into memory as numbers.

use std::path::Path;

use burn::tensor::{DType, TensorData};
use safetensors::{Dtype, SafeTensors};
use wegeft::AdapterError;
use wegeft::storage::{Stored, Tensors};

/// The tensors of `path` whose names `wanted` accepts, F16 and BF16 widened to f32.
pub(super) fn read(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Tensors, AdapterError> {
    let error = |message: String| AdapterError::File {
        action: "read",
        path: path.to_path_buf(),
        message,
    };
    let bytes = std::fs::read(path).map_err(|e| error(e.to_string()))?;
    let file =
        SafeTensors::deserialize(&bytes).map_err(|e| error(format!("not a complete safetensors file ({e:?})")))?;
    file.iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, view)| {
            let dtype = match view.dtype() {
                Dtype::F32 => DType::F32,
                Dtype::F16 => DType::F16,
                Dtype::BF16 => DType::BF16,
                other => {
                    return Err(error(format!(
                        "'{name}' has dtype {other:?}, expected F32, F16 or BF16"
                    )));
                }
            };
            let shape = view.shape().to_vec();
            let data = TensorData::from_bytes_vec(view.data().to_vec(), shape.clone(), dtype);
            let values = data.iter::<f32>().collect();
            Ok((name.to_string(), Stored { shape, values }))
        })
        .collect()
}
