//! Run folders: config.toml says what a folder is for, and what it holds is kept.

use std::path::Path;

use serde::de::DeserializeOwned;
use wegeft::storage::write_then_rename;

use crate::language::settings::Settings;
use crate::settings::read;

/// Makes or reopens the run folder `out`: what it already holds is kept if its settings are the same. Gives back the
/// outcomes of its summary.json.
///
/// # Errors
/// A folder of other settings, or one that cannot be written.
pub fn open<T: DeserializeOwned>(out: &Path, settings: &Settings) -> Result<Vec<T>, String> {
    std::fs::create_dir_all(out).map_err(|e| format!("cannot make {}: {e}; choose another --out", out.display()))?;
    let config = out.join("config.toml");
    // A run that failed before it had anything to keep does not bind the next one to its settings.
    if config.exists() && holds_something(out) {
        if read::<Settings>(&config)? != *settings {
            return Err(format!(
                "{} was made with other settings; choose another --out, give --resume to go on with its own, or remove it",
                out.display()
            ));
        }
    } else {
        let text = toml::to_string(settings).map_err(|e| e.to_string())?;
        write_then_rename(&config, text.as_bytes()).map_err(|e| e.to_string())?;
    }
    let summary = out.join("summary.json");
    match std::fs::read_to_string(&summary) {
        Ok(text) => {
            serde_json::from_str(&text).map_err(|e| format!("{} is damaged ({e}); remove it", summary.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("cannot read {}: {error}", summary.display())),
    }
}

/// True if a file other than config.toml in `folder`, or in a folder in it, is not empty.
fn holds_something(folder: &Path) -> bool {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.into_iter().any(|file| match file.file_type() {
        Ok(kind) if kind.is_dir() => holds_something(&file.path()),
        _ => file.file_name() != "config.toml" && file.metadata().is_ok_and(|data| data.len() > 0),
    })
}
