//! Tensors on disk and in memory: safetensors files, and modules filled from and collected into named tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::checksum::{self, Metadata};
use crate::error::AdapterError;
use crate::site::ParamInfo;

/// Start of the keys of an adapter's tensors, before the name of a module.
pub const PREFIX: &str = "base_model.model.";

/// One stored tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Shape in PyTorch's orientation: `[d_out, d_in]` for a linear weight.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub values: Vec<f32>,
}

impl Stored {
    /// True if no element is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        // Without an early end: that is quicker.
        self.values.iter().fold(true, |all, value| all & value.is_finite())
    }
}

/// The tensors of a file by name.
pub type Tensors = BTreeMap<String, Stored>;

/// Path in a module -> (parameter, name on disk).
pub type Names = BTreeMap<String, (ParamInfo, String)>;

/// A description of every tensor that is missing, unexpected or of another shape; empty if `tensors` fit `names`.
pub fn problems(names: &Names, tensors: &Tensors) -> Vec<String> {
    let mut problems = Vec::new();
    for (param, name) in names.values() {
        let expected = param.stored_shape();
        match tensors.get(name) {
            None => problems.push(format!("missing '{name}' {expected:?}")),
            Some(stored) if stored.shape != expected => {
                problems.push(format!("'{name}' has shape {:?}, expected {expected:?}", stored.shape));
            }
            Some(_) => {}
        }
    }
    let wanted: BTreeSet<&String> = names.values().map(|(_, name)| name).collect();
    problems.extend(
        tensors
            .keys()
            .filter(|name| !wanted.contains(name))
            .map(|name| format!("unexpected '{name}'")),
    );
    problems
}

/// `module` with the parameters in `names` taken from `tensors`, for which [`problems`] must have found none.
pub fn fill<M: Module>(module: M, names: &Names, tensors: &Tensors) -> M {
    module.map(&mut Filler {
        path: Vec::new(),
        names,
        tensors,
    })
}

/// The parameters of `module` that `names` lists.
pub fn collect<M: Module>(module: &M, names: &Names) -> Tensors {
    let mut reader = Reader {
        path: Vec::new(),
        names,
        tensors: Tensors::new(),
    };
    module.visit(&mut reader);
    reader.tensors
}

pub(crate) fn to_stored<const D: usize>(tensor: Tensor<D>, transpose: bool) -> Stored {
    let tensor = if transpose { tensor.swap_dims(0, D - 1) } else { tensor };
    let data = tensor.into_data().convert::<f32>();
    Stored {
        shape: data.shape().to_vec(),
        values: data.iter::<f32>().collect(),
    }
}

struct Reader<'a> {
    path: Vec<String>,
    names: &'a Names,
    tensors: Tensors,
}

impl ModuleVisitor for Reader<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some((info, name)) = self.names.get(&self.path.join(".")) {
            self.tensors
                .insert(name.clone(), to_stored(param.base(), info.transposed));
        }
    }
}

struct Filler<'a> {
    path: Vec<String>,
    names: &'a Names,
    tensors: &'a Tensors,
}

impl ModuleMapper for Filler<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((info, name)) = self.names.get(&self.path.join(".")) else {
            return param;
        };
        let Some(stored) = self.tensors.get(name) else {
            return param;
        };
        let dtype = param.base().dtype();
        param.map(|old| {
            // Transposed in memory, not as a view: with the memory layout it had before saving, results are the same bit
            // for bit.
            let values = if info.transposed {
                transposed(stored)
            } else {
                stored.values.clone()
            };
            let data = TensorData::new(values, info.shape.clone()).convert_dtype(dtype);
            Tensor::<D>::from_data(data, (&old.device(), dtype)).set_require_grad(old.is_require_grad())
        })
    }
}

fn transposed(stored: &Stored) -> Vec<f32> {
    let (rows, columns) = (stored.shape[0], stored.shape[1]);
    (0..columns)
        .flat_map(|c| (0..rows).map(move |r| stored.values[r * columns + c]))
        .collect()
}

pub(crate) fn file_error(action: &'static str, path: &Path, message: impl ToString) -> AdapterError {
    AdapterError::File {
        action,
        path: path.to_path_buf(),
        message: match action {
            "read" => files::explained(path, message),
            _ => message.to_string(),
        },
    }
}

/// Writes `tensors` as f32 safetensors under a temporary name and renames the file to `path`.
///
/// # Errors
/// A file that cannot be written.
pub fn write_tensors(path: &Path, tensors: &Tensors) -> Result<(), AdapterError> {
    write_then_rename(path, &pack(path, tensors)?)
}

/// `tensors` as the bytes of an f32 safetensors file. `path` names the file in messages.
pub(crate) fn pack(path: &Path, tensors: &Tensors) -> Result<Vec<u8>, AdapterError> {
    pack_with(path, tensors, Metadata::new())
}

/// [`pack`] with `more` metadata.
pub(crate) fn pack_with(path: &Path, tensors: &Tensors, more: Metadata) -> Result<Vec<u8>, AdapterError> {
    let bytes: BTreeMap<&String, (Vec<u8>, &Vec<usize>)> = tensors
        .iter()
        .map(|(name, stored)| {
            (
                name,
                (
                    stored.values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                    &stored.shape,
                ),
            )
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, (bytes, shape))| {
            TensorView::new(Dtype::F32, shape.to_vec(), bytes).map(|view| (name.as_str(), view))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| file_error("write", path, e))?;
    let mut metadata = checksum::metadata();
    metadata.extend(more);
    let stored = metadata.iter().map(|(name, text)| (name.to_string(), text.clone()));
    let file = safetensors::serialize(views, Some(stored.collect())).map_err(|e| file_error("write", path, e))?;
    Ok(checksum::seal(file, &metadata))
}

/// Writes `bytes` to a temporary file, syncs it and renames it to `path`: readers see the old file or the new one and
/// never a part, even after a power loss. A symbolic link is followed; a device or a pipe is written to directly.
///
/// # Errors
/// A file that cannot be written.
pub fn write_then_rename(path: &Path, bytes: &[u8]) -> Result<(), AdapterError> {
    files::write_through(path, bytes).map_err(|e| file_error("write", path, e))
}

/// The tensors of a safetensors file, F16 and BF16 upcast to f32; without the batch counts of PyTorch's BatchNorm.
///
/// # Errors
/// A file that is missing, truncated or changed since it was written, or a tensor of another type.
pub fn read_tensors(path: &Path) -> Result<Tensors, AdapterError> {
    let bytes = files::read_regular(path).map_err(|e| file_error("read", path, e))?;
    unpack(path, &bytes)
}

/// Bytes of the header of a safetensors file at most: a hundred thousand tensors take a tenth of them. Parsed, a header
/// takes many times its size in memory.
pub const LONGEST_HEADER: u64 = 32 << 20;

/// Dimensions of a tensor at most: that of a convolution over videos has five.
const MOST_DIMENSIONS: usize = 8;

/// Fields and elements of lists in such a header at most, ten of a tensor: short ones take ten times their size in memory.
const MOST_FIELDS: usize = 1_000_000;

/// Refuses a safetensors file, of which `file` has at least the header, if its header is too long or has too many fields to
/// be parsed.
///
/// # Errors
/// What is wrong with it.
pub fn check_header(file: &[u8]) -> Result<(), String> {
    let length = file.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    // A length beyond the end of the file is reported by the parser.
    if length >= file.len() as u64 {
        return Ok(());
    }
    if length > LONGEST_HEADER {
        return Err(format!(
            "its header has {length} bytes, more than the {LONGEST_HEADER} that are read; take another file"
        ));
    }
    let header = file.get(8..checksum::header(file)).unwrap_or_default();
    match fields(header) > MOST_FIELDS {
        true => Err(format!(
            "its header has more than {MOST_FIELDS} fields, which no model needs; take another file"
        )),
        false => Ok(()),
    }
}

/// Counts the fields and the elements of lists in JSON, without a byte of memory: the colons and commas outside of texts.
fn fields(json: &[u8]) -> usize {
    // Each takes a byte.
    if json.len() <= MOST_FIELDS {
        return 0;
    }
    let (mut count, mut in_text, mut is_escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            b':' | b',' if !in_text => count += 1,
            _ => {}
        }
    }
    count
}

/// Refuses the shape of the tensor `name` if it has more dimensions than any weight has.
///
/// # Errors
/// What is wrong with it.
pub fn check_shape(name: &str, shape: &[usize]) -> Result<(), String> {
    match shape.len() {
        ..=MOST_DIMENSIONS => Ok(()),
        many => Err(format!(
            "'{name}' has {many} dimensions, expected at most {MOST_DIMENSIONS}"
        )),
    }
}

/// True for PyTorch's count of the batches that a BatchNorm has seen, an integer that Burn's does not have and nothing
/// reads.
pub(crate) fn is_counter(name: &str) -> bool {
    name.rsplit('.').next() == Some("num_batches_tracked")
}

/// The tensors in the bytes of a safetensors file. `path` names the file in messages.
pub(crate) fn unpack(path: &Path, bytes: &[u8]) -> Result<Tensors, AdapterError> {
    check_header(bytes).map_err(|message| file_error("read", path, message))?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| {
        file_error(
            "read",
            path,
            format!("it is not a complete safetensors file ({e:?}); copy or download it again"),
        )
    })?;
    if !checksum::holds(bytes) {
        let message =
            "its checksum does not match, so it has changed since it was written; copy it again, or train it again";
        return Err(file_error("read", path, message));
    }
    let tensors = file.iter().filter(|(name, _)| !is_counter(name));
    tensors
        .map(|(name, view)| {
            check_shape(name, view.shape()).map_err(|message| file_error("read", path, message))?;
            let dtype = match view.dtype() {
                Dtype::F32 => DType::F32,
                Dtype::F16 => DType::F16,
                Dtype::BF16 => DType::BF16,
                other => {
                    return Err(file_error(
                        "read",
                        path,
                        format!("'{name}' has dtype {other:?}, expected F32, F16 or BF16"),
                    ));
                }
            };
            let data = TensorData::from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), dtype);
            let values = data.iter::<f32>().collect();
            Ok((
                name.to_string(),
                Stored {
                    shape: view.shape().to_vec(),
                    values,
                },
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn headers_and_shapes_that_no_model_has_are_refused() {
        let stored = |dimensions: usize| Stored {
            shape: vec![1; dimensions],
            values: vec![1.0],
        };
        let path = Path::new("x.safetensors");
        let packed = |dimensions| pack(path, &Tensors::from([("w".to_string(), stored(dimensions))])).unwrap();
        assert_eq!(unpack(path, &packed(8)).unwrap()["w"], stored(8));
        let message = unpack(path, &packed(60_000)).unwrap_err().to_string();
        assert!(message.contains("'w' has 60000 dimensions"), "{message}");
        // As long as it says: zeros, of which nothing is parsed.
        let mut file = (LONGEST_HEADER + 1).to_le_bytes().to_vec();
        file.resize(file.len() + LONGEST_HEADER as usize + 1, 0);
        let message = unpack(path, &file).unwrap_err().to_string();
        assert!(message.contains("its header has 33554433 bytes"), "{message}");
    }

    #[test]
    fn a_header_of_millions_of_fields_is_not_parsed() {
        let path = Path::new("x.safetensors");
        let file = |entry: &str, count: usize| {
            let entries = vec![entry; count].join(",");
            let header = format!("{{\"__metadata__\":{{{entries}}}}}");
            [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
        };
        let message = unpack(path, &file("\"a\":\"\"", 500_001)).unwrap_err().to_string();
        assert!(message.contains("more than 1000000 fields"), "{message}");
        let list = format!("\"a\":[{}1]", "1,".repeat(1_000_001));
        assert!(check_header(&file(&list, 1)).is_err());
        // What is in a text is no field.
        let text = format!("\"a\":\"{}\\\"\"", ":,\\\"".repeat(600_000));
        assert_eq!(check_header(&file(&text, 1)), Ok(()));
        assert!(unpack(path, &file(&text, 1)).unwrap().is_empty());
    }

    #[test]
    fn an_error_names_the_file_that_was_asked_for_alone() {
        let message = write_then_rename(Path::new("/nowhere/at/all"), b"new")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("/nowhere/at/all") && !message.contains(".tmp"),
            "{message}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_and_a_pipe_is_written_into() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "old").unwrap();
        symlink(path("file"), path("link")).unwrap();
        write_then_rename(&path("link"), b"new").unwrap();
        assert!(path("link").is_symlink());
        assert_eq!(fs::read(path("file")).unwrap(), b"new");

        symlink(path("later"), path("dangling")).unwrap();
        write_then_rename(&path("dangling"), b"new").unwrap();
        assert_eq!(fs::read(path("later")).unwrap(), b"new");

        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(made.success());
        let pipe = path("pipe");
        let reader = std::thread::spawn(move || fs::read(pipe).unwrap());
        write_then_rename(&path("pipe"), b"new").unwrap();
        assert!(fs::metadata(path("pipe")).unwrap().file_type().is_fifo());
        assert_eq!(reader.join().unwrap(), b"new");
    }
}
