//! The tensors of one safetensors file or of a sharded checkpoint, read one at a time and straight into the type that
//! is asked for: no file is ever in memory as a whole, no tensor twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use burn::tensor::{Element, ElementConversion, TensorData, bf16, f16};
use safetensors::tensor::{Dtype, Metadata};
use serde_json::Value;
use wegeft::AdapterError;

use super::import::Precision;

/// Name of the file of a checkpoint that is one file.
pub(crate) const SINGLE: &str = "model.safetensors";
/// Name of the file that says which shard holds which tensor.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// Where each tensor of a checkpoint lies.
pub(crate) struct Shards {
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, Entry>,
}

/// Where one tensor lies.
pub(crate) struct Entry {
    file: usize,
    dtype: Dtype,
    start: u64,
    /// Shape on disk.
    pub(crate) shape: Vec<usize>,
}

impl Shards {
    /// Reads the headers of the checkpoint in `folder`.
    ///
    /// # Errors
    /// A file that is missing, truncated or no safetensors file.
    pub(crate) fn open(folder: &Path) -> Result<Self, AdapterError> {
        let mut shards = Self {
            files: Vec::new(),
            tensors: BTreeMap::new(),
        };
        let index = folder.join(INDEX);
        if !folder.join(SINGLE).is_file() && index.is_file() {
            for name in shard_names(&index)? {
                let path = folder.join(&name);
                if !path.is_file() {
                    return Err(file_error(
                        &path,
                        format!("this shard, which {INDEX} names, is missing; fetch it again"),
                    ));
                }
                shards.add(path)?;
            }
        } else {
            shards.add(folder.join(SINGLE))?;
        }
        Ok(shards)
    }

    fn add(&mut self, path: PathBuf) -> Result<(), AdapterError> {
        let (metadata, start) = header(&path)?;
        for (name, info) in metadata.tensors() {
            let entry = Entry {
                file: self.files.len(),
                dtype: info.dtype,
                start: start + info.data_offsets.0 as u64,
                shape: info.shape.clone(),
            };
            self.tensors.insert(name, entry);
        }
        self.files.push(path);
        Ok(())
    }

    /// The tensors by name.
    pub(crate) fn tensors(&self) -> &BTreeMap<String, Entry> {
        &self.tensors
    }

    /// The type that most values are stored in; f32 of any that is wider or no float.
    pub(crate) fn precision(&self) -> Precision {
        let count = |dtype: Dtype| -> usize {
            let of_it = self.tensors.values().filter(|entry| entry.dtype == dtype);
            of_it.map(|entry| entry.shape.iter().product::<usize>()).sum()
        };
        let kinds = [
            (count(Dtype::F32), Precision::F32),
            (count(Dtype::BF16), Precision::Bf16),
            (count(Dtype::F16), Precision::F16),
        ];
        let most = kinds.into_iter().rev().max_by_key(|(count, _)| *count);
        most.map_or(Precision::F32, |(_, precision)| precision)
    }

    /// The first file, for messages about the checkpoint as a whole.
    pub(crate) fn path(&self) -> &Path {
        &self.files[0]
    }

    /// One tensor of `tensors()`, as a matrix transposed if `transpose` says so.
    ///
    /// # Errors
    /// A file that cannot be read, or a type that is no float.
    pub(crate) fn read(&self, name: &str, transpose: bool, precision: Precision) -> Result<TensorData, AdapterError> {
        let entry = &self.tensors[name];
        let path = &self.files[entry.file];
        let read = || -> io::Result<TensorData> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(entry.start))?;
            match precision {
                Precision::F32 => entry.values::<f32>(file, transpose),
                Precision::Bf16 => entry.values::<bf16>(file, transpose),
                Precision::F16 => entry.values::<f16>(file, transpose),
            }
        };
        match entry.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => read().map_err(|e| file_error(path, e)),
            other => Err(file_error(
                path,
                format!("'{name}' has dtype {other:?}, expected F32, F16 or BF16"),
            )),
        }
    }
}

impl Entry {
    fn values<E: Element>(&self, mut file: impl Read, transpose: bool) -> io::Result<TensorData> {
        let count: usize = self.shape.iter().product();
        let width = if self.dtype == Dtype::F32 { 4 } else { 2 };
        let convert = |bytes: &[u8]| -> E {
            match self.dtype {
                Dtype::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32().elem(),
                Dtype::BF16 => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32().elem(),
                _ => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).elem(),
            }
        };
        if !transpose {
            let mut values: Vec<E> = Vec::with_capacity(count);
            let mut piece = vec![0; PIECE.min(count * width)];
            while values.len() < count {
                let bytes = PIECE.min((count - values.len()) * width);
                file.read_exact(&mut piece[..bytes])?;
                values.extend(piece[..bytes].chunks_exact(width).map(convert));
            }
            return Ok(TensorData::new(values, self.shape.clone()));
        }
        let (rows, columns) = (self.shape[0], self.shape[1]);
        let mut values: Vec<E> = vec![0f32.elem(); count];
        // Some rows at once: each then fills a whole cache line of every column.
        let together = (PIECE / (columns * width).max(1)).max(16).min(rows.max(1));
        let mut piece = vec![0; together * columns * width];
        for first in (0..rows).step_by(together) {
            let now = together.min(rows - first);
            let bytes = &mut piece[..now * columns * width];
            file.read_exact(bytes)?;
            for column in 0..columns {
                let target = &mut values[column * rows + first..][..now];
                for (row, value) in target.iter_mut().enumerate() {
                    *value = convert(&bytes[(row * columns + column) * width..]);
                }
            }
        }
        Ok(TensorData::new(values, [columns, rows]))
    }
}

/// The files that an index names, each once.
pub(crate) fn shard_names(index: &Path) -> Result<BTreeSet<String>, AdapterError> {
    let text = std::fs::read_to_string(index).map_err(|e| file_error(index, e))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| file_error(index, e))?;
    let map = json
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| file_error(index, "it has no object 'weight_map'"))?;
    map.values()
        .map(|name| {
            // A plain file name: nothing outside the folder is ever opened.
            let name = name.as_str().filter(|name| !name.contains(['/', '\\']));
            name.map(String::from)
                .ok_or_else(|| file_error(index, "'weight_map' holds something else than file names"))
        })
        .collect()
}

/// The header of a safetensors file, and where its data begin.
fn header(path: &Path) -> Result<(Metadata, u64), AdapterError> {
    let incomplete = |message: String| file_error(path, format!("not a complete safetensors file ({message})"));
    let mut file = File::open(path).map_err(|e| file_error(path, e))?;
    let size = file.metadata().map_err(|e| file_error(path, e))?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|e| incomplete(e.to_string()))?;
    let start = u64::from_le_bytes(length).saturating_add(8);
    if start > size {
        return Err(incomplete(format!(
            "{size} bytes, its header alone should have {start}"
        )));
    }
    let mut text = vec![0; (start - 8) as usize];
    file.read_exact(&mut text).map_err(|e| incomplete(e.to_string()))?;
    let metadata: Metadata = serde_json::from_slice(&text).map_err(|e| incomplete(e.to_string()))?;
    let end = start + metadata.data_len() as u64;
    if end != size {
        return Err(incomplete(format!(
            "{size} bytes, its header promises {end}; fetch it again"
        )));
    }
    Ok((metadata, start))
}

pub(crate) fn file_error(path: &Path, message: impl ToString) -> AdapterError {
    AdapterError::File {
        action: "read",
        path: path.to_path_buf(),
        message: message.to_string(),
    }
}
