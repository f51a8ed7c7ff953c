//! Folders of models that hold an adapter.

use std::fs::canonicalize;
use std::path::Path;

use serde_json::Value;
use wegeft::storage::CONFIG_FILE;

use super::output::note;

/// Bytes of an adapter's config at most.
const LONGEST: u64 = 1 << 20;

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
