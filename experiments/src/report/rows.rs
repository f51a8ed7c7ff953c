//! The rows of any program's summary.json.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cli::settings;
use crate::run::files::LONGEST;

/// One outcome; fields that only some programs have may be absent.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Row {
    /// Program.
    pub experiment: String,
    /// Task.
    pub task: String,
    /// Group of the task.
    #[serde(default)]
    pub group: String,
    /// Method.
    pub method: String,
    /// Trainable parameters without the head.
    pub trainable_params: usize,
    /// Percentage of the frozen parameters.
    pub percent_trainable: f64,
    /// Name of `value`.
    pub metric: String,
    /// The result; absent if nothing was held out.
    pub value: Option<f64>,
    /// Peak memory, MB.
    #[serde(default, alias = "peak_rss_mb")] // as earlier runs wrote it
    pub peak_mb: Option<f64>,
    /// Seed.
    pub seed: u64,
    /// Peak learning rate.
    #[serde(default, alias = "learning_rate")]
    pub lr: Option<f64>,
    /// Weight decay.
    #[serde(default)]
    pub weight_decay: Option<f64>,
    /// Pretrained model.
    #[serde(default)]
    pub model: Option<String>,
    /// Location of the data.
    #[serde(default)]
    pub data: Option<String>,
    /// Questions.
    #[serde(default)]
    pub questions: Option<usize>,
    /// The summary.json that it stands in.
    #[serde(skip)]
    pub run: PathBuf,
    /// All settings of the run except its seed, as text: runs share a row only if these are equal.
    #[serde(skip)]
    pub settings: BTreeMap<String, String>,
}

impl Row {
    /// Sets the settings from the run folder's config.toml that concern this row; without one, those in the row itself. What
    /// the row says of its rates counts, since a sweep chooses them and a method may have its own.
    fn set_settings(&mut self, config: Option<&toml::Table>) {
        let own = [("model", self.model.clone()), ("data", self.data.clone())];
        let Some(config) = config else {
            let known = own
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_string(), value?)));
            self.settings = known.collect();
            return;
        };
        let is_told = |name: &str| match name {
            "learning_rate" | "lr" => self.lr.is_some(), // `lr` in runs of before
            "weight_decay" => self.weight_decay.is_some(),
            _ => matches!(name, "seed" | "method" | "task" | "sets" | "methods"),
        };
        let of_methods = config.get("methods").and_then(|methods| methods.get(&self.method));
        let of_method = of_methods.and_then(toml::Value::as_table).into_iter().flatten();
        let all = config.iter().map(|(name, value)| (name, name.clone(), value));
        let own = of_method.map(|(name, value)| (name, format!("{}.{name}", self.method), value));
        self.settings = all
            .chain(own)
            .filter(|(name, _, _)| !is_told(name))
            .map(|(_, whole, value)| (whole, value.to_string()))
            .collect();
    }
}

/// The rows of every run folder in or below `paths`; a path may also be a summary.json.
///
/// # Errors
/// A path without any summary.json, a file that cannot be read or is malformed.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for path in paths {
        let mut summaries = Vec::new();
        find(path, &mut summaries, &mut BTreeSet::new())?;
        if summaries.is_empty() {
            return Err(format!(
                "{} holds no summary.json; give run folders, or a folder of run folders",
                path.display()
            ));
        }
        for file in summaries {
            let text = files::read_text(&file, LONGEST).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
            let mut found: Vec<Row> = serde_json::from_str(&text).map_err(|e| {
                format!(
                    "{} is not a list of outcomes ({e}); remove it or run its program again",
                    file.display()
                )
            })?;
            let config = file.with_file_name("config.toml");
            let config = match files::read_text(&config, settings::LONGEST) {
                Ok(text) => Some(toml::from_str(&text).map_err(|e| format!("{} is damaged ({e})", config.display()))?),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(format!("cannot read {}: {error}", config.display())),
            };
            for row in &mut found {
                row.set_settings(config.as_ref());
                row.run.clone_from(&file);
            }
            rows.extend(found);
        }
    }
    Ok(rows)
}

/// Every summary.json at or below `path`, sorted. `seen`: folders that were visited, since links may lead to them
/// again.
fn find(path: &Path, found: &mut Vec<PathBuf>, seen: &mut BTreeSet<PathBuf>) -> Result<(), String> {
    if path.is_file() {
        found.push(path.to_path_buf());
        return Ok(());
    }
    let summary = path.join("summary.json");
    if summary.is_file() {
        found.push(summary);
        return Ok(()); // a run folder holds no other run folder
    }
    let refuse_other = |path: &Path| match files::kind_of_other(path) {
        Some(kind) => Err(format!(
            "{} is {kind} and not the results of a run; give run folders, or remove it",
            path.display()
        )),
        None => Ok(()),
    };
    if !path.is_dir() {
        refuse_other(path)?;
    }
    refuse_other(&summary)?;
    let cannot_read = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    if !seen.insert(std::fs::canonicalize(path).map_err(cannot_read)?) {
        return Ok(());
    }
    let entries = std::fs::read_dir(path).map_err(cannot_read)?;
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders.iter().try_for_each(|folder| find(folder, found, seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_that_cannot_be_the_settings_of_a_run_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        std::fs::write(dir.path().join("summary.json"), "[]").unwrap();
        let rows = || read(&[dir.path().to_path_buf()]);
        assert_eq!(rows().unwrap(), []);
        for bytes in [settings::LONGEST as usize, settings::LONGEST as usize + 1] {
            std::fs::write(&config, " ".repeat(bytes)).unwrap();
            let read = rows();
            match bytes as u64 > settings::LONGEST {
                true => assert!(read.unwrap_err().contains("config.toml: it has 1048577 bytes")),
                false => assert_eq!(read.unwrap(), []),
            }
        }
        std::fs::remove_file(&config).unwrap();
        std::fs::create_dir(&config).unwrap();
        assert!(rows().unwrap_err().contains("config.toml"));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_in_the_place_of_a_summary_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("runs/a");
        std::fs::create_dir_all(&run).unwrap();
        let summary = run.join("summary.json");
        let message = |path: &Path| read(&[path.to_path_buf()]).unwrap_err();
        std::fs::create_dir(&summary).unwrap();
        assert!(
            message(&run).contains("summary.json is a folder and not"),
            "{}",
            message(&run)
        );
        std::fs::remove_dir(&summary).unwrap();
        std::os::unix::fs::symlink("nowhere", &summary).unwrap();
        assert!(message(&run).contains("summary.json is a link that leads nowhere"));
        std::fs::remove_file(&summary).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&summary).status().unwrap();
        assert!(made.success());
        for path in [dir.path(), &run, &summary] {
            let message = message(path);
            assert!(
                message.contains("summary.json is a pipe, a socket or a device"),
                "{message}"
            );
        }
    }
}
