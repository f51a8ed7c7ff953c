//! Run folders: config.toml says what a folder is for, and what it holds is kept.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::language::settings::Settings;
use crate::run_settings::{claim, refuse_another};

/// Makes or reopens the run folder `out`: what it already holds is kept if its settings are the same. Gives back the
/// outcomes of its summary.json. `resumed`: these are the folder's own settings, changed by flags.
///
/// # Errors
/// A folder of other settings, or one that cannot be written.
pub fn open<T: DeserializeOwned>(out: &Path, settings: &Settings, resumed: bool) -> Result<Vec<T>, String> {
    refuse_another(out, settings, resumed)?;
    claim(out, settings)?;
    let summary = out.join("summary.json");
    match std::fs::read_to_string(&summary) {
        Ok(text) => {
            serde_json::from_str(&text).map_err(|e| format!("{} is damaged ({e}); remove it", summary.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("cannot read {}: {error}", summary.display())),
    }
}
