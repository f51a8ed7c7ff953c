//! Folders of models: those that hold an adapter, and what is said before one is loaded.

use std::fs::canonicalize;
use std::path::Path;

use serde_json::Value;
use wegeft::storage::CONFIG_FILE;

use super::output::note;

/// Bytes of an adapter's config at most.
const LONGEST: u64 = 1 << 20;

/// Bytes of weights that take more than a moment to load.
const SLOW: u64 = 100_000_000;

/// What to say before the model called `name` is loaded, if that takes a while.
pub fn loading(name: &str, model: &Path) -> Option<String> {
    let bytes_of = |extension: &str| -> u64 {
        let entries = std::fs::read_dir(model).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        let weights = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
        weights.filter_map(|path| Some(path.metadata().ok()?.len())).sum()
    };
    let bytes = match bytes_of("safetensors") {
        0 => bytes_of("bin"),
        bytes => bytes,
    };
    (bytes >= SLOW).then(|| format!("{name}: loading {} MB", bytes / 1_000_000))
}

/// [`refuse_adapter`], then [`note_adapter`].
///
/// # Errors
/// As [`refuse_adapter`].
pub fn check(model: &Path, given: Option<&Path>) -> Result<(), String> {
    refuse_adapter(model)?;
    note_adapter(model, given);
    Ok(())
}

/// Refuses a folder of an adapter alone, given as a model.
///
/// # Errors
/// One sentence that names the adapter's own model, if its config does.
pub fn refuse_adapter(model: &Path) -> Result<(), String> {
    if !model.join(CONFIG_FILE).is_file() || model.join("config.json").exists() {
        return Ok(());
    }
    let text = files::read_text(&model.join(CONFIG_FILE), LONGEST).unwrap_or_default();
    let config: Value = serde_json::from_str(&text).unwrap_or_default();
    let base = config["base_model_name_or_path"]
        .as_str()
        .filter(|name| !name.is_empty());
    Err(format!(
        "{} is an adapter and not a model ({CONFIG_FILE} is there and no config.json); give it as --adapter, and as --model \
         the model that it was trained on{}",
        model.display(),
        base.map_or(String::new(), |name| format!(" ({name})"))
    ))
}

/// Notes an adapter in the folder of a model, which transformers would load too, unless it is among the `given` ones.
pub fn note_adapter<'a>(model: &Path, given: impl IntoIterator<Item = &'a Path>) {
    let is_given =
        |given: &Path| canonicalize(given).is_ok_and(|given| canonicalize(model).is_ok_and(|model| model == given));
    if model.join(CONFIG_FILE).is_file() && !given.into_iter().any(is_given) {
        note(format_args!(
            "{} holds an adapter too ({CONFIG_FILE}), which transformers would apply; --model reads the model alone, and \
             --adapter the adapter",
            model.display()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_model_is_announced_and_a_small_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(loading("m", dir.path()), None);
        let sized = |name: &str, bytes| {
            std::fs::File::create(dir.path().join(name))
                .unwrap()
                .set_len(bytes)
                .unwrap()
        };
        sized("pytorch_model.bin", 3 * SLOW);
        sized("README.md", 9 * SLOW);
        assert_eq!(loading("m", dir.path()).unwrap(), "m: loading 300 MB");
        // Safetensors are what is read where there are both.
        sized("model-00001-of-00002.safetensors", SLOW);
        sized("model-00002-of-00002.safetensors", SLOW);
        assert_eq!(loading("m", dir.path()).unwrap(), "m: loading 200 MB");
        assert_eq!(loading("m", Path::new("/nowhere")), None);
    }

    #[test]
    fn an_adapter_is_no_model_unless_one_is_there_too() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(refuse_adapter(dir.path()), Ok(()));
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(CONFIG_FILE, r#"{"base_model_name_or_path": "org/base"}"#);
        let message = refuse_adapter(dir.path()).unwrap_err();
        assert!(
            message.contains("--adapter") && message.ends_with("trained on (org/base)"),
            "{message}"
        );
        write(CONFIG_FILE, "{}");
        assert!(refuse_adapter(dir.path()).unwrap_err().ends_with("trained on"));
        write("config.json", "{}");
        assert_eq!(refuse_adapter(dir.path()), Ok(()));
    }
}
