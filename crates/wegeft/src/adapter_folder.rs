//! The two files of an adapter folder, read: the config and the tensors.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::checkpoint::{Tensors, file_error, read_tensors, unpack};
use crate::config::AdapterConfig;
use crate::error::AdapterError;
use crate::foreign;
use crate::json::Unique;
use crate::method::Reader;
use crate::pickle;
use crate::saved_with;

/// Name of the config file in an adapter folder.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Name of the weights file in an adapter folder.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Name of the weights file of adapters that PEFT saved with `safe_serialization=False`, a pickle.
pub const PICKLED_FILE: &str = "adapter_model.bin";
/// Bytes. Parsed JSON takes many times its size in memory, and no real config comes near this size.
const CONFIG_LIMIT: u64 = 1 << 20;

/// The tensors of an adapter folder and the file they come from: adapter_model.safetensors, or else adapter_model.bin, a
/// pickle that is parsed but never executed.
///
/// # Errors
/// A file that is missing or damaged.
pub fn read_weights(folder: impl AsRef<Path>) -> Result<(Tensors, PathBuf), AdapterError> {
    weights_of(folder.as_ref(), |_| Ok(()))
}

/// [`read_weights`], where `check` first sees the bytes of a safetensors file.
pub(crate) fn weights_of(
    folder: &Path,
    check: impl FnOnce(&[u8]) -> Result<(), AdapterError>,
) -> Result<(Tensors, PathBuf), AdapterError> {
    let (path, pickled) = (folder.join(WEIGHTS_FILE), folder.join(PICKLED_FILE));
    let (mut tensors, path) = match files::at_current(&path, files::read_regular) {
        Err(error) if error.kind() == ErrorKind::NotFound && pickled.is_file() => {
            (pickle::read_tensors(&pickled)?, pickled)
        }
        read => {
            let bytes = read.map_err(|e| file_error("read", &path, e))?;
            let tensors = unpack(&path, &bytes)?;
            check(&bytes)?;
            (tensors, path)
        }
    };
    foreign::unwrap_rows(&mut tensors);
    Ok((tensors, path))
}

/// Reads `adapter_config.json` of an adapter folder.
///
/// # Errors
/// A file that is missing, is not JSON, has an unknown `peft_type`, asks for a variant that is not implemented, or is not
/// the one that the weights beside it were saved with.
pub fn read_config(folder: impl AsRef<Path>) -> Result<AdapterConfig, AdapterError> {
    read_config_with(folder, &[])
}

/// [`read_config`] for a folder whose method may also be one of `own`, given as pairs of `peft_type` and reader.
///
/// # Errors
/// As [`read_config`].
pub fn read_config_with(folder: impl AsRef<Path>, own: &[(&str, Reader)]) -> Result<AdapterConfig, AdapterError> {
    let folder = folder.as_ref();
    let path = folder.join(CONFIG_FILE);
    let fields = read_fields(&path)?;
    let weights = files::current(&folder.join(WEIGHTS_FILE));
    let belongs = check_settings(&fields, &saved_with::header(&weights), &path);
    let config = config_of(fields, &path, own)?;
    if let Err(error) = belongs {
        // Unless it is the weights that are damaged.
        read_tensors(&weights)?;
        return Err(error);
    }
    Ok(config)
}

/// Refuses `fields`, read from the file at `path`, if the tensors in `weights` were saved with other settings.
pub(crate) fn check_settings(fields: &Map<String, Value>, weights: &[u8], path: &Path) -> Result<(), AdapterError> {
    match saved_with::difference(fields, weights) {
        Some(message) => Err(file_error("read", path, message)),
        None => Ok(()),
    }
}

/// The fields of a config file.
pub(crate) fn read_fields(path: &Path) -> Result<Map<String, Value>, AdapterError> {
    let text = files::at_current(path, |path| files::read_text(path, CONFIG_LIMIT)).map_err(|error| {
        match error.kind() == ErrorKind::NotFound && path.with_file_name(WEIGHTS_FILE).is_file() {
            true => file_error(
                "read",
                path,
                "it is missing beside its tensors: copying this folder was interrupted, or left out its hidden files; do it again",
            ),
            false => file_error("read", path, error),
        }
    })?;
    fields_of(&text, path)
}

pub(crate) fn fields_of(text: &str, path: &Path) -> Result<Map<String, Value>, AdapterError> {
    let Unique(json) = serde_json::from_str(text).map_err(|e| file_error("read", path, e))?;
    match json {
        Value::Object(fields) => Ok(fields),
        _ => Err(file_error("read", path, "it is not a JSON object")),
    }
}

/// The config that `fields`, read from the file at `path`, describe.
pub(crate) fn config_of(
    fields: Map<String, Value>,
    path: &Path,
    own: &[(&str, Reader)],
) -> Result<AdapterConfig, AdapterError> {
    AdapterConfig::from_fields(fields, own).map_err(|e| file_error("read", path, e))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::adapter_files::AdapterFiles;
    use crate::checkpoint::Stored;
    use crate::methods::lora::LoraConfig;

    #[test]
    fn a_config_that_an_interrupted_program_did_not_write_is_told_from_no_folder() {
        let dir = tempfile::tempdir().unwrap();
        let message = || read_config(dir.path()).unwrap_err().to_string();
        assert!(
            message().contains("No such file") || message().contains("cannot find"),
            "{}",
            message()
        );
        std::fs::write(dir.path().join(WEIGHTS_FILE), "").unwrap();
        assert!(
            message().contains("copying this folder was interrupted"),
            "{}",
            message()
        );
        std::fs::write(dir.path().join(CONFIG_FILE), " ".repeat(CONFIG_LIMIT as usize + 1)).unwrap();
        assert!(message().contains("it has 1048577 bytes"), "{}", message());
    }

    #[test]
    fn an_adapter_whose_files_are_not_all_in_their_places_is_whole() {
        let adapter = |value: f32, r: usize| {
            let fields = [("peft_type", json!("LORA")), ("r", json!(r)), ("lora_alpha", json!(r))];
            let fields = fields.map(|(name, value)| (name.to_string(), value));
            let (shape, values) = (vec![1], vec![value]);
            AdapterFiles::new(Map::from_iter(fields), [("a".into(), Stored { shape, values })].into())
        };
        // The weights have been moved, the config has not, and the process was killed.
        let dir = tempfile::tempdir().unwrap();
        let (folder, made) = (dir.path(), dir.path().join(".tmpAbC123"));
        adapter(1.0, 2).write(folder).unwrap();
        adapter(2.0, 4).write(&made).unwrap();
        let list = format!(".tmpAbC123\nfile {WEIGHTS_FILE}\nlast {CONFIG_FILE}\n");
        std::fs::write(folder.join(".replacing"), list).unwrap();
        std::fs::remove_file(folder.join(CONFIG_FILE)).unwrap();
        let check = || {
            let read = AdapterFiles::read(folder).unwrap();
            assert_eq!(
                (&read.fields()["r"], &read.tensors()["a"].values),
                (&json!(4), &vec![2.0])
            );
            assert_eq!(read_config(folder).unwrap().settings::<LoraConfig>().unwrap().r, 4);
        };
        check();
        std::fs::rename(made.join(WEIGHTS_FILE), folder.join(WEIGHTS_FILE)).unwrap();
        check();
        files::finish(folder).unwrap();
        check();
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 2);
        // With the same config, only the weights are new.
        adapter(3.0, 4).write(folder).unwrap();
        assert_eq!(AdapterFiles::read(folder).unwrap().tensors()["a"].values, [3.0]);
    }
}
