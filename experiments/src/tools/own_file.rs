//! Which file the result of a program may replace: an earlier one, not a photo, an adapter or a file of a run. And what a
//! killed program left beside it.

use std::path::Path;
use std::time::Duration;

use safetensors::tensor::Metadata;
use wegeft::storage::header;

use crate::run::strays::is_stray;

/// A file that is being written changes more often than that.
const QUIET: Duration = Duration::from_secs(60);

/// Refuses a file `out`, given as `flag`, that is no earlier result: a safetensors file with the tensor `tensor`, or
/// `tensor.0`. An empty file has nothing to lose, and a pipe or a device is written into.
///
/// # Errors
/// Another file.
pub fn refuse_another(flag: &str, out: &Path, tensor: &str) -> Result<(), String> {
    let holds_bytes = std::fs::metadata(out).is_ok_and(|data| data.is_file() && data.len() > 0);
    match holds_bytes && !is_result(out, tensor) {
        true => Err(format!(
            "{flag} {} is a file of another kind, which the result would replace; choose another name, or remove it",
            out.display()
        )),
        false => Ok(()),
    }
}

/// Removes the temporary files of results of that kind that killed programs left beside `out`: those to which nobody
/// writes any more. A failure is ignored.
pub fn remove_left(out: &Path, tensor: &str) {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new(".")));
    for entry in entries.into_iter().flatten().flatten() {
        let is_left = || {
            let data = entry.metadata().ok().filter(|data| data.is_file())?;
            data.modified().ok()?.elapsed().ok().filter(|age| *age > QUIET)
        };
        if is_stray(&entry.file_name().to_string_lossy()) && is_left().is_some() && is_result(&entry.path(), tensor) {
            let _ = files::remove_file(&entry.path());
        }
    }
}

fn is_result(path: &Path, tensor: &str) -> bool {
    let header = header(path);
    let known: Option<Metadata> = header.get(8..).and_then(|text| serde_json::from_slice(text).ok());
    let first = format!("{tensor}.0");
    known.is_some_and(|known| known.info(tensor).or(known.info(&first)).is_some())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use wegeft::storage::{Stored, Tensors, write_tensors};

    use super::*;

    #[test]
    fn what_a_killed_program_left_is_removed_once_nobody_writes_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, tensor: &str, age: u64| {
            let values = vec![1.0];
            let tensors = Tensors::from([(tensor.to_string(), Stored { shape: vec![1], values })]);
            write_tensors(&path(name), &tensors).unwrap();
            let file = std::fs::File::options().write(true).open(path(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        };
        write(".tmpAbC123", "logits", 3600);
        write(".tmpAbC124", "logits", 0);
        write(".tmpAbC125", "weight", 3600);
        write("logits", "logits", 3600);
        remove_left(&path("out"), "logits");
        assert!(!path(".tmpAbC123").exists());
        for name in [".tmpAbC124", ".tmpAbC125", "logits"] {
            assert!(path(name).exists(), "{name}");
        }
    }

    #[test]
    fn an_earlier_result_is_replaced_and_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let refused = || refuse_another("--out", &out, "logits");
        refused().unwrap();
        std::fs::write(&out, "").unwrap();
        refused().unwrap();
        let stored = |name: &str| {
            let tensor = Stored {
                shape: vec![1],
                values: vec![1.0],
            };
            write_tensors(&out, &Tensors::from([(name.to_string(), tensor)])).unwrap();
        };
        for name in ["logits", "logits.0"] {
            stored(name);
            refused().unwrap();
        }
        stored("base_model.model.q.lora_A.weight");
        let message = refused().unwrap_err();
        assert!(
            message.starts_with("--out ") && message.contains("another kind"),
            "{message}"
        );
        for bytes in [&b"\x89PNG"[..], b"{\"step\":1}\n", &[0xff; 100]] {
            std::fs::write(&out, bytes).unwrap();
            assert!(refused().is_err(), "{bytes:?}");
        }
        refuse_another("--out", dir.path(), "logits").unwrap();
    }
}
