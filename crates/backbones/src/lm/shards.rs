//! The tensors of one file or of a sharded checkpoint, safetensors or PyTorch's own, read one at a time and straight into
//! the requested dtype: no file is ever in memory as a whole, no tensor twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Element, ElementConversion, TensorData, bf16, f16};
use safetensors::tensor::{Dtype, Metadata};
use serde_json::Value;
use wegeft::AdapterError;
use wegeft::pickle::{self, Pickled};
use wegeft::storage::{LONGEST_HEADER, check_header, check_shape};

use super::precision::Precision;
use crate::wrapped::{Wrapped, unmerged};

/// Name of the file of a checkpoint that is one file.
pub(crate) const SINGLE: &str = "model.safetensors";
/// Name of the file that says which shard holds which tensor.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Name of a checkpoint in PyTorch's own format.
pub(crate) const TORCH: &str = "pytorch_model.bin";
/// Name of the file that says which of its shards holds which tensor.
pub(crate) const TORCH_INDEX: &str = "pytorch_model.bin.index.json";
/// Ends of the name of the embedding of words.
const EMBEDDINGS: [&str; 4] = [
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
];
/// What the models' own names have before that; the longer ones first.
const BASES: [&str; 11] = [
    "model.language_model.",
    "language_model.model.",
    "distilbert.embeddings.",
    "roberta.embeddings.",
    "electra.embeddings.",
    "deberta.embeddings.",
    "bert.embeddings.",
    "model.embeddings.",
    "transformer.",
    "embeddings.",
    "model.",
];
/// Bytes read at once.
const PIECE: usize = 1 << 20;
/// Largest index that is read, in bytes: a tensor takes about a hundred, so this is room for a million.
const LONGEST_INDEX: u64 = 128 << 20;

/// Where each tensor of a checkpoint is stored.
pub(crate) struct Shards {
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, Entry>,
}

/// Where one tensor is stored.
pub(crate) struct Entry {
    file: usize,
    dtype: Dtype,
    place: Place,
    /// Shape on disk.
    pub(crate) shape: Vec<usize>,
}

/// Where the elements of a tensor are.
enum Place {
    /// From this byte of a safetensors file on.
    At(u64),
    /// In a file of PyTorch's.
    Pickled(Pickled),
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
        for path in files(folder)? {
            match is_pickled(&path) {
                true => shards.add_pickled(path)?,
                false => shards.add(path)?,
            }
        }
        shards.unwrap()?;
        Ok(shards)
    }

    /// Takes away what stands before the names of all tensors. Names of several embeddings of words stay as they are.
    fn unwrap(&mut self) -> Result<(), AdapterError> {
        let names = || self.tensors.keys().map(String::as_str);
        if let Some(message) = unmerged(names()) {
            return Err(file_error(self.path(), message));
        }
        let wrapped = Wrapped::find(names(), &EMBEDDINGS, &BASES).unwrap_or_default();
        let bare: BTreeSet<String> = names().map(|name| wrapped.without(name)).collect();
        if bare.len() == self.tensors.len() {
            let tensors = std::mem::take(&mut self.tensors).into_iter();
            self.tensors = tensors.map(|(name, entry)| (wrapped.without(&name), entry)).collect();
        }
        Ok(())
    }

    fn add_pickled(&mut self, path: PathBuf) -> Result<(), AdapterError> {
        for (name, tensor) in pickle::tensors(&path)? {
            let entry = Entry {
                file: self.files.len(),
                dtype: match tensor.dtype() {
                    DType::F64 => Dtype::F64,
                    DType::F32 => Dtype::F32,
                    DType::F16 => Dtype::F16,
                    DType::BF16 => Dtype::BF16,
                    DType::I64 | DType::U64 => Dtype::I64,
                    DType::I32 | DType::U32 => Dtype::I32,
                    DType::I16 | DType::U16 => Dtype::I16,
                    _ => Dtype::U8,
                },
                shape: tensor.shape().to_vec(),
                place: Place::Pickled(tensor),
            };
            self.tensors.insert(name, entry);
        }
        self.files.push(path);
        Ok(())
    }

    fn add(&mut self, path: PathBuf) -> Result<(), AdapterError> {
        let (metadata, start) = header(&path)?;
        for (name, info) in metadata.tensors() {
            check_shape(&name, &info.shape).map_err(|message| file_error(&path, message))?;
            let entry = Entry {
                file: self.files.len(),
                dtype: info.dtype,
                place: Place::At(start + info.data_offsets.0 as u64),
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

    /// One tensor of `tensors()`, transposed if `transpose` is true and it is a matrix.
    ///
    /// # Errors
    /// A file that cannot be read, or a type that is not a float.
    pub(crate) fn read(&self, name: &str, transpose: bool, precision: Precision) -> Result<TensorData, AdapterError> {
        let entry = &self.tensors[name];
        let path = &self.files[entry.file];
        if !matches!(entry.dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            let dtype = entry.dtype;
            return Err(file_error(
                path,
                format!("'{name}' has dtype {dtype:?}; expected F32, F16, BF16 or F64"),
            ));
        }
        let read = || -> io::Result<TensorData> {
            let bytes = entry.open(path)?;
            match precision {
                Precision::F32 | Precision::Flex32 => entry.values::<f32>(bytes, transpose),
                Precision::Bf16 => entry.values::<bf16>(bytes, transpose),
                Precision::F16 => entry.values::<f16>(bytes, transpose),
            }
        };
        let data = read().map_err(|e| file_error(path, e))?;
        // Rows of an embedding for words that nobody uses may hold anything; of those in use, the outputs tell. Elsewhere the
        // outputs need not tell: softmax hides them of the one token of a short text, and so does a product with zero.
        match EMBEDDINGS.iter().any(|end| name.ends_with(end)) || are_finite(&data) {
            true => Ok(data),
            false => Err(file_error(path, not_finite(name))),
        }
    }

    /// True if the tensors `a` and `b` have the same shape and elements.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn equal(&self, a: &str, b: &str) -> Result<bool, AdapterError> {
        let (a, b) = (&self.tensors[a], &self.tensors[b]);
        if a.shape != b.shape || a.dtype != b.dtype {
            return Ok(false);
        }
        let (path_a, path_b) = (&self.files[a.file], &self.files[b.file]);
        let mut bytes_a = a.open(path_a).map_err(|e| file_error(path_a, e))?;
        let mut bytes_b = b.open(path_b).map_err(|e| file_error(path_b, e))?;
        let mut left = a.shape.iter().product::<usize>() * a.width();
        let (mut piece_a, mut piece_b) = (vec![0; PIECE.min(left)], vec![0; PIECE.min(left)]);
        while left > 0 {
            let now = PIECE.min(left);
            bytes_a
                .read_exact(&mut piece_a[..now])
                .map_err(|e| file_error(path_a, e))?;
            bytes_b
                .read_exact(&mut piece_b[..now])
                .map_err(|e| file_error(path_b, e))?;
            if piece_a[..now] != piece_b[..now] {
                return Ok(false);
            }
            left -= now;
        }
        Ok(true)
    }
}

impl Entry {
    /// Its bytes, of the file at `path`.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        Ok(match &self.place {
            Place::At(start) => {
                let mut file = files::open_regular(path)?;
                file.seek(SeekFrom::Start(*start))?;
                Box::new(file)
            }
            Place::Pickled(tensor) => Box::new(Cursor::new(tensor.bytes().map_err(io::Error::other)?)),
        })
    }

    /// Bytes of an element.
    fn width(&self) -> usize {
        self.dtype.bitsize() / 8
    }

    fn values<E: Element>(&self, mut file: impl Read, transpose: bool) -> io::Result<TensorData> {
        let count: usize = self.shape.iter().product();
        let width = self.width();
        let convert = |bytes: &[u8]| -> E {
            match self.dtype {
                Dtype::F64 => f64::from_le_bytes(*bytes.first_chunk().expect("eight bytes an element")).elem(),
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

/// True if no element is NaN or infinite. Looks at all of them, which is faster than to stop at the first.
fn are_finite(data: &TensorData) -> bool {
    fn all<E: Element>(data: &TensorData) -> bool {
        let values = data.as_slice::<E>().unwrap_or_default();
        values
            .iter()
            .fold(true, |all, value| all & value.elem::<f32>().is_finite())
    }
    match data.dtype() {
        DType::BF16 => all::<bf16>(data),
        DType::F16 => all::<f16>(data),
        _ => all::<f32>(data),
    }
}

/// What is wrong with the tensor `name`.
pub(crate) fn not_finite(name: &str) -> String {
    format!(
        "'{name}' has elements that are NaN or infinite, or too large for the type that it is read as; load it as f32, or take \
         another file"
    )
}

/// True for a file in PyTorch's own format.
pub(crate) fn is_pickled(path: &Path) -> bool {
    path.extension().is_some_and(|end| end != "safetensors")
}

/// The files of the checkpoint in `folder`, safetensors before PyTorch's own.
///
/// # Errors
/// No weights there, an index that is malformed or names files that are missing.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>, AdapterError> {
    let found = [SINGLE, INDEX, TORCH, TORCH_INDEX].map(|name| folder.join(name));
    let Some(found) = found.into_iter().find(|file| file.is_file()) else {
        let message = format!(
            "there is no {SINGLE}, {INDEX}, {TORCH} or {TORCH_INDEX} in it; give a folder that holds the weights"
        );
        return Err(file_error(folder, message));
    };
    if found.extension().is_none_or(|end| end != "json") {
        return Ok(vec![found]);
    }
    let files: Vec<PathBuf> = shard_names(&found)?.iter().map(|name| folder.join(name)).collect();
    match files.iter().find(|file| !file.is_file()) {
        None => Ok(files),
        Some(missing) => {
            let index = found.file_name().unwrap_or_default().display();
            Err(file_error(
                missing,
                format!("this shard, which {index} names, is missing; fetch it again"),
            ))
        }
    }
}

/// The files that an index names, each once.
pub(crate) fn shard_names(index: &Path) -> Result<BTreeSet<String>, AdapterError> {
    let text = files::read_text(index, LONGEST_INDEX).map_err(|e| file_error(index, e))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| file_error(index, e))?;
    let map = json
        .get("weight_map")
        .and_then(Value::as_object)
        .filter(|map| !map.is_empty())
        .ok_or_else(|| {
            file_error(
                index,
                "it has no object 'weight_map' that names a shard; fetch it again",
            )
        })?;
    map.values()
        .map(|name| {
            // A plain file name: nothing outside the folder is ever opened.
            let plain = |name: &&str| !name.contains(['/', '\\', ':', '\0']) && !matches!(*name, "" | "." | "..");
            name.as_str().filter(plain).map(String::from).ok_or_else(|| {
                file_error(
                    index,
                    format!("'weight_map' holds {name}; expected names of files in this folder"),
                )
            })
        })
        .collect()
}

/// The header of a safetensors file, and where its data begin.
fn header(path: &Path) -> Result<(Metadata, u64), AdapterError> {
    let incomplete = |message: String| file_error(path, format!("not a complete safetensors file ({message})"));
    let mut file = files::open_regular(path).map_err(|e| file_error(path, e))?;
    let size = file.metadata().map_err(|e| file_error(path, e))?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|e| incomplete(e.to_string()))?;
    let start = u64::from_le_bytes(length).saturating_add(8);
    if start - 8 > LONGEST_HEADER {
        return Err(incomplete(format!("its header has {} bytes", start - 8)));
    }
    if start > size {
        return Err(incomplete(format!(
            "{size} bytes, its header alone should have {start}"
        )));
    }
    let mut header = length.to_vec();
    let read = file.take(start - 8).read_to_end(&mut header);
    read.map_err(|e| incomplete(e.to_string()))?;
    check_header(&header).map_err(|message| file_error(path, message))?;
    let metadata: Metadata = serde_json::from_slice(&header[8..]).map_err(|e| incomplete(e.to_string()))?;
    let end = start.saturating_add(metadata.data_len() as u64);
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
        message: files::explained(path, message),
    }
}

#[cfg(test)]
mod tests {
    use wegeft::storage::{Stored, Tensors, write_tensors};

    use super::*;

    #[test]
    fn a_tensor_with_more_dimensions_than_any_weight_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let write = |dimensions: usize| {
            let tensor = Stored {
                shape: vec![1; dimensions],
                values: vec![1.0],
            };
            write_tensors(&dir.path().join(SINGLE), &Tensors::from([("w".to_string(), tensor)])).unwrap();
        };
        write(8);
        assert_eq!(Shards::open(dir.path()).unwrap().tensors()["w"].shape.len(), 8);
        write(9);
        let message = Shards::open(dir.path()).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("'w' has 9 dimensions"), "{message}");
    }
}
