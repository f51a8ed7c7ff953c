//! The settings of a run folder: config.toml, which is binding once the folder contains results, and data.json, the
//! checksum of the training and test data.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cli::output::tell;
use crate::cli::settings::Layer;
use crate::run::files::{read_json, replace, write_json};

/// The settings of a run folder.
pub const CONFIG: &str = "config.toml";
const DATA: &str = "data.json";
/// Where it is computed: it may change from start to start, as checkpoints know nothing of devices.
const DEVICE: &str = "device";

#[derive(Serialize, Deserialize)]
struct Data {
    sha256: String,
}

/// A run's claim to its folder: the settings for config.toml.
pub struct Claim<'a> {
    /// The run folder.
    pub out: &'a Path,
    /// The settings.
    pub settings: &'a toml::Table,
    /// Reads the settings of a config.toml, with old names replaced by the current ones.
    pub read: &'a dyn Fn(&Layer) -> Result<toml::Table, String>,
    /// Fields with the paths of data and models: they may change as long as the content stays the same.
    pub paths: &'a [&'a str],
    /// True if the settings are the folder's own, overridden by flags.
    pub resumed: bool,
}

impl Claim<'_> {
    /// Makes the run folder, or checks that its content was made with these settings on the same data. `checksum`
    /// computes the checksum of the data; it is called only if something is left to do or the data has moved.
    ///
    /// # Errors
    /// A folder with results of other settings or data, or one that cannot be made.
    pub fn check(&self, left: bool, checksum: impl FnOnce() -> Result<String, String>) -> Result<(), String> {
        let config = self.out.join(CONFIG);
        let data = self.data()?;
        let bound = holds_work(self.out) && config.exists();
        if !bound {
            return Ok(());
        }
        let known = (self.read)(&Layer::read(&config)?)?;
        let fields = self.settings.keys().chain(known.keys());
        let mut differing: Vec<&String> = fields
            .filter(|key| *key != DEVICE && self.settings.get(*key) != known.get(*key))
            .collect();
        differing.dedup();
        let moved: Vec<&String> = differing
            .iter()
            .copied()
            .filter(|key| self.paths.contains(&key.as_str()))
            .collect();
        if moved.len() < differing.len() {
            differing.retain(|key| !moved.contains(key));
            differing.sort();
            differing.dedup();
            return Err(self.refused(&format!(
                "other settings ({})",
                described(&differing, &known, self.settings)
            )));
        }
        if !left && moved.is_empty() {
            return Ok(());
        }
        match data {
            Some(data) if data.sha256 != checksum()? => Err(match self.gone() {
                Some((field, path)) => format!(
                    "{} was started with {path}, which is gone: put it back, or give its new path as --{}",
                    self.out.display(),
                    field.replace('_', "-")
                ),
                None => format!(
                    "{} was made with other data: files have changed since; restore them, choose another --out, or remove it",
                    self.out.display()
                ),
            }),
            Some(_) => {
                if !moved.is_empty() {
                    tell("the data has moved; its content is the same");
                }
                Ok(())
            }
            None if moved.is_empty() => Ok(()),
            None => Err(self.refused(&format!(
                "other settings ({}), and without {DATA} its content cannot be compared",
                described(&moved, &known, self.settings)
            ))),
        }
    }

    /// True if an earlier start of such a run has left its settings in the folder.
    ///
    /// # Errors
    /// A data.json that cannot be read, or is not of a run.
    pub fn is_own(&self) -> Result<bool, String> {
        let config = self.out.join(CONFIG);
        let table = || Layer::read(&config).and_then(|layer| (self.read)(&layer));
        // Every setting may be left out; a run writes all of them.
        let has_settings = || config.metadata().is_ok_and(|data| data.len() > 0) && table().is_ok();
        Ok(self.data()?.is_some() || has_settings())
    }

    fn data(&self) -> Result<Option<Data>, String> {
        read_json(&self.out.join(DATA), "choose another --out, or remove it")
    }

    /// The first of the paths that does not exist: its field and itself.
    pub fn gone(&self) -> Option<(&str, &str)> {
        let fields = self
            .paths
            .iter()
            .filter_map(|field| Some((*field, self.settings.get(*field)?)));
        let paths = fields.flat_map(|(field, value)| match value {
            toml::Value::Array(values) => values.iter().map(|value| (field, value)).collect(),
            value => vec![(field, value)],
        });
        paths
            .filter_map(|(field, path)| Some((field, path.as_str()?)))
            // A model may be a name on the hub.
            .find(|(_, path)| Path::new(path).is_absolute() && !Path::new(path).exists())
    }

    fn refused(&self, why: &str) -> String {
        let advice = match self.resumed {
            true => "leave the other flags out to continue with its own settings, choose another --out, or remove it",
            false => "choose another --out, give --resume alone to continue with its own settings, or remove it",
        };
        format!("{} was made with {why}; {advice}", self.out.display())
    }

    /// Saves the settings and the checksum in the run folder.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, checksum: impl FnOnce() -> Result<String, String>) -> Result<(), String> {
        let data = self.out.join(DATA);
        if !data.exists() || !holds_work(self.out) {
            write_json(&data, &Data { sha256: checksum()? })?;
        }
        let config = self.out.join(CONFIG);
        let text = toml::to_string(self.settings).map_err(|e| e.to_string())?;
        if files::read_regular(&config).is_ok_and(|there| there == text.as_bytes()) {
            return Ok(());
        }
        replace(&config, text.as_bytes())
    }
}

/// A few of `fields`, each with both of its values.
fn described(fields: &[&String], known: &toml::Table, new: &toml::Table) -> String {
    const MOST: usize = 4;
    let shown = |table: &toml::Table, field: &str| table.get(field).map_or("unset".into(), toml::Value::to_string);
    let mut parts: Vec<String> = fields
        .iter()
        .take(MOST)
        .map(|field| format!("{field}: {} there, {} here", shown(known, field), shown(new, field)))
        .collect();
    if fields.len() > MOST {
        parts.push("…".into());
    }
    parts.join("; ")
}

/// Refuses a run folder with a link that leads out of it: its author could make the program write elsewhere.
///
/// # Errors
/// The first such link.
pub fn refuse_links(out: &Path) -> Result<(), String> {
    let Ok(root) = std::fs::canonicalize(out) else {
        return Ok(());
    };
    let mut waiting = vec![out.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type());
            if kind.as_ref().is_ok_and(std::fs::FileType::is_dir) {
                waiting.push(path);
            } else if kind.is_ok_and(|kind| kind.is_symlink())
                && !std::fs::canonicalize(&path).is_ok_and(|target| target.starts_with(&root))
            {
                return Err(format!(
                    "{} is a link out of the run folder, which is not followed; remove it, or choose another --out",
                    path.display()
                ));
            }
        }
    }
    Ok(())
}

/// True for the folder of a run, of one of its trainings, and for an adapter or checkpoints that it trained.
pub fn is_of_a_run(folder: &Path) -> bool {
    let is_training = |folder: &Path| has(folder, "metrics.jsonl") || has(folder, "outcome.json");
    let Ok(folder) = std::fs::canonicalize(folder) else {
        return false; // there is none yet
    };
    is_run(&folder) || is_training(&folder) || (is_trained(&folder) && folder.parent().is_some_and(is_training))
}

/// [`is_of_a_run`], or the folder of an adapter or of checkpoints that a run has not written yet: those of its trainings are
/// below folders of task, method and seed.
pub fn is_for_a_run(folder: &Path) -> bool {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    is_of_a_run(&folder) || (is_trained(&folder) && folder.ancestors().skip(2).take(3).any(is_run))
}

fn is_run(folder: &Path) -> bool {
    has(folder, CONFIG) && has(folder, DATA)
}

fn is_trained(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    matches!(name, Some("adapter" | "checkpoints"))
}

fn has(folder: &Path, name: &str) -> bool {
    folder.join(name).is_file()
}

/// True if a run has left a checkpoint, answers or a result in `folder`; files from a failed start do not count.
pub fn holds_work(folder: &Path) -> bool {
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

    fn claim<'a>(out: &'a Path, settings: &'a toml::Table, resumed: bool) -> Claim<'a> {
        Claim {
            out,
            settings,
            read: &|layer| layer.table(),
            paths: &["data"],
            resumed,
        }
    }

    #[test]
    fn data_that_is_gone_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("data.jsonl");
        let settings = format!("data = [{:?}]", file.to_str().unwrap());
        let settings = toml::from_str::<toml::Table>(&settings).unwrap();
        let out = dir.path().join("run");
        std::fs::create_dir(&out).unwrap();
        let claim = claim(&out, &settings, true);
        claim.save(|| Ok("sum".into())).unwrap();
        std::fs::write(out.join("summary.json"), "work").unwrap();
        let message = claim.check(true, || Ok("other".into())).unwrap_err();
        assert!(message.contains("is gone") && message.contains("--data"), "{message}");
        std::fs::write(&file, "").unwrap();
        let message = claim.check(true, || Ok("other".into())).unwrap_err();
        assert!(message.contains("have changed"), "{message}");
    }

    #[test]
    fn the_adapter_of_a_training_that_has_just_begun_is_for_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        let adapter = out.join("digits/lora/adapter");
        assert!(!is_for_a_run(&adapter));
        for name in [CONFIG, DATA] {
            std::fs::write(out.join(name), "").unwrap();
        }
        assert!(is_for_a_run(&adapter) && !is_of_a_run(&adapter));
        assert!(!is_for_a_run(&out.join("digits/lora/merged")));
    }

    #[test]
    fn a_folder_is_a_run_s_by_its_settings() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        let settings = toml::Table::from_iter([("seed".to_string(), toml::Value::Integer(1))]);
        let claim = Claim {
            read: &|layer| match layer.table()? {
                table if table.contains_key("seed") => Ok(table),
                _ => Err("no settings".into()),
            },
            ..claim(out, &settings, false)
        };
        assert_eq!(claim.is_own(), Ok(false));
        std::fs::write(out.join(CONFIG), "title = 'a page'").unwrap();
        assert_eq!(claim.is_own(), Ok(false));
        // As runs left it before they had a data.json.
        std::fs::write(out.join(CONFIG), "seed = 2").unwrap();
        assert_eq!(claim.is_own(), Ok(true));
        claim.save(|| Ok("sum".into())).unwrap();
        std::fs::remove_file(out.join(CONFIG)).unwrap();
        assert_eq!(claim.is_own(), Ok(true));
        std::fs::write(out.join(DATA), "[1, 2]").unwrap();
        let message = claim.is_own().unwrap_err();
        assert!(
            message.contains("data.json was made by another program") && message.contains("another --out"),
            "{message}"
        );
    }

    #[test]
    fn work_binds_a_folder_and_a_failed_start_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("run");
        std::fs::create_dir_all(out.join("a")).unwrap();
        let table = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
        let (first, other) = (table("seed = 1\ndata = \"x\""), table("seed = 7\ndata = \"x\""));
        let moved = table("seed = 1\ndata = \"y\"");
        let same = || Ok("sum".to_string());
        claim(&out, &first, false).check(true, same).unwrap();
        claim(&out, &first, false).save(same).unwrap();
        for (file, text) in [("a/metrics.jsonl", "{}"), ("a/set.jsonl", "")] {
            std::fs::write(out.join(file), text).unwrap();
        }
        claim(&out, &other, false).check(true, same).unwrap();
        for file in [
            "a/set.jsonl",
            "a/checkpoints/model-1.bpk",
            "a/trained.json",
            "summary.json",
        ] {
            let path = out.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "work").unwrap();
            claim(&out, &first, false).check(true, same).unwrap();
            claim(&out, &moved, true).check(true, same).unwrap();
            let changed = claim(&out, &moved, true)
                .check(true, || Ok("other".into()))
                .unwrap_err();
            assert!(changed.contains("other data"), "{changed}");
            assert!(claim(&out, &first, false).check(true, || Ok("other".into())).is_err());
            claim(&out, &first, false)
                .check(false, || Err("not read".into()))
                .unwrap();
            let message = claim(&out, &other, false).check(true, same).unwrap_err();
            for part in ["other settings", "seed: 1 there, 7 here", "--resume alone"] {
                assert!(message.contains(part), "{message}");
            }
            let message = claim(&out, &other, true).check(true, same).unwrap_err();
            assert!(message.contains("leave the other flags out"), "{message}");
            std::fs::remove_file(&path).unwrap();
        }
    }
}
