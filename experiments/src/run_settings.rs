//! The settings of a run folder: config.toml, which binds the folder once there is something in it to keep.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wegeft::storage::write_then_rename;

use crate::settings::read;

const FILE: &str = "config.toml";

/// Makes the run folder `out`, or looks whether what it holds was made with `settings`. `resumed`: these are the
/// folder's own, changed by flags.
///
/// # Errors
/// A folder that holds work of other settings, or that cannot be made.
pub fn refuse_another<S: DeserializeOwned + PartialEq>(out: &Path, settings: &S, resumed: bool) -> Result<(), String> {
    std::fs::create_dir_all(out).map_err(|e| format!("cannot make {}: {e}; choose another --out", out.display()))?;
    let config = out.join(FILE);
    if !holds_work(out) || !config.exists() || read::<S>(&config)? == *settings {
        return Ok(());
    }
    let advice = match resumed {
        true => "leave the other flags out to go on with its own, choose another --out, or remove it",
        false => "choose another --out, give --resume alone to go on with its own, or remove it",
    };
    Err(format!("{} was made with other settings; {advice}", out.display()))
}

/// Keeps the settings in the run folder.
///
/// # Errors
/// A file that cannot be written.
pub fn claim<S: Serialize + DeserializeOwned + PartialEq>(out: &Path, settings: &S) -> Result<(), String> {
    let config = out.join(FILE);
    if config.exists() && read::<S>(&config).is_ok_and(|known| known == *settings) {
        return Ok(());
    }
    let text = toml::to_string(settings).map_err(|e| e.to_string())?;
    write_then_rename(&config, text.as_bytes()).map_err(|e| e.to_string())
}

/// True if a run has left a checkpoint, answers or a result in `folder`: what a failed start leaves does not count.
fn holds_work(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => holds_work(&entry.path()),
        _ => {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let answers = name.ends_with(".jsonl") && name != "metrics.jsonl";
            name.ends_with(".bpk")
                || matches!(&*name, "outcome.json" | "summary.json" | "trained.json")
                || (answers && entry.metadata().is_ok_and(|data| data.len() > 0))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn work_binds_a_folder_and_a_failed_start_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("run");
        let first = Settings::default();
        let other = Settings {
            seed: 7,
            ..Settings::default()
        };
        refuse_another(&out, &first, false).unwrap();
        claim(&out, &first).unwrap();
        for (file, text) in [("a/metrics.jsonl", "{}"), ("a/set.jsonl", "")] {
            std::fs::create_dir_all(out.join("a")).unwrap();
            std::fs::write(out.join(file), text).unwrap();
        }
        refuse_another(&out, &other, false).unwrap();
        for file in [
            "a/set.jsonl",
            "a/checkpoints/model-1.bpk",
            "a/trained.json",
            "summary.json",
        ] {
            let path = out.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "work").unwrap();
            refuse_another(&out, &first, false).unwrap();
            let message = refuse_another(&out, &other, false).unwrap_err();
            assert!(
                message.contains("other settings") && message.contains("--resume alone"),
                "{message}"
            );
            assert!(
                refuse_another(&out, &other, true)
                    .unwrap_err()
                    .contains("leave the other flags out")
            );
            std::fs::remove_file(&path).unwrap();
        }
    }
}
