//! Which folder a program may write a model, an adapter or a run to: a new one, or that of its own earlier result. A mark
//! in the folder says which program made it, and which files are the result's (see [`files::Staging::put_as`]).

use std::path::Path;

use serde_json::Value;

use crate::run::files::LONGEST;
use crate::run::folder::{CONFIG, is_for_a_run, is_of_a_run};
use crate::run::outcome::Outcome;

/// Files by which a folder is that of a model or an adapter.
const FILES: [&str; 8] = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Refuses an `out` of a run, and one that holds a model or an adapter, unless `is_own`.
///
/// # Errors
/// A folder whose files the result would replace, or which would be that of two models.
pub fn refuse_another(out: &Path, is_own: bool) -> Result<(), String> {
    let there = of_a_model(out).filter(|_| !is_own);
    let why = match there {
        _ if is_for_a_run(out) => "belongs to a run, whose files would be replaced".to_string(),
        Some(name) => format!("holds {name} of another model or adapter"),
        None => return Ok(()),
    };
    Err(format!("{} {why}; choose another folder", out.display()))
}

/// The first file in `folder` by which it is that of a model or an adapter.
fn of_a_model(folder: &Path) -> Option<&'static str> {
    FILES.into_iter().find(|name| folder.join(name).exists())
}

/// Refuses the folder `out` for a run, unless an earlier start of one has left its settings there (`is_own`): that of a
/// model or an adapter, and one with a file that the run would replace.
///
/// # Errors
/// The first such file.
pub fn refuse_for_a_run(out: &Path, is_own: bool) -> Result<(), String> {
    let own = [CONFIG, SUMMARY, "report.html"].map(|name| out.join(name));
    for path in &own {
        if let Some(kind) = files::kind_of_other(path) {
            return Err(format!(
                "{} is {kind}, in the place of a file of the run; choose another --out, or remove it",
                path.display()
            ));
        }
    }
    if is_own {
        return Ok(());
    }
    let is_of_a_model = |name: &&str| match *name {
        "config.json" => describes_a_model(&out.join(name)),
        name => out.join(name).exists(),
    };
    if let Some(name) = FILES.iter().find(|name| is_of_a_model(name)) {
        return Err(format!(
            "{} holds {name}, which is of a model or an adapter and not of a run; choose another --out",
            out.display()
        ));
    }
    // Whoever removed the settings may want other ones for the results that are there.
    if has_outcomes(&out.join(SUMMARY)) {
        return Ok(());
    }
    match own.iter().find(|path| path.exists()) {
        Some(path) => Err(format!(
            "{} is not of a run of this program and would be replaced; choose another --out, or remove it",
            path.display()
        )),
        None => Ok(()),
    }
}

/// True if the config.json at `path` is a model's, as transformers or timm write it.
fn describes_a_model(path: &Path) -> bool {
    let bytes = files::read_limited(path, LONGEST).unwrap_or_default();
    let fields: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    ["model_type", "architectures", "architecture"]
        .iter()
        .any(|field| fields.get(field).is_some())
}

/// The results of a run.
pub const SUMMARY: &str = "summary.json";

/// True if `path` is a summary.json.
fn has_outcomes(path: &Path) -> bool {
    let bytes = files::read_limited(path, LONGEST).unwrap_or_default();
    let outcomes: Option<Vec<Outcome>> = serde_json::from_slice(&bytes).ok();
    outcomes
        .is_some_and(|outcomes| !outcomes.is_empty() && outcomes.iter().all(|outcome| !outcome.experiment.is_empty()))
}

/// Refuses the folder of a training whose `adapter` was not trained there: a training has metrics before it has an adapter.
///
/// # Errors
/// The adapter.
pub fn refuse_another_adapter(folder: &Path) -> Result<(), String> {
    let adapter = folder.join("adapter");
    match of_a_model(&adapter).filter(|_| !is_of_a_run(&adapter)) {
        Some(name) => Err(format!(
            "{} is not of a training of this program and would be replaced; choose another --out, or remove it",
            adapter.join(name).display()
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_own_result_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let refused = |maker: &str| refuse_another(&out, files::is_made_by(&out, maker));
        refused("merge").unwrap();
        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join("notes.txt"), "").unwrap();
        refused("merge").unwrap();
        let mark = out.join(".made-by");
        for name in FILES {
            std::fs::write(out.join(name), "").unwrap();
            let message = refused("merge").unwrap_err();
            assert!(
                message.contains(name) && message.contains("another folder"),
                "{message}"
            );
            std::fs::write(&mark, format!("merge\n{name}\n")).unwrap();
            refused("merge").unwrap();
            assert!(refused("convert").is_err());
            for file in [&mark, &out.join(name)] {
                std::fs::remove_file(file).unwrap();
            }
        }
        // A run's adapter is not an own result either.
        let adapter = dir.path().join("run/adapter");
        std::fs::create_dir_all(&adapter).unwrap();
        std::fs::write(dir.path().join("run/metrics.jsonl"), "").unwrap();
        assert!(refuse_another(&adapter, true).unwrap_err().contains("belongs to a run"));
    }

    #[test]
    fn a_run_replaces_nothing_that_is_not_of_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        refuse_for_a_run(out, false).unwrap();
        std::fs::write(out.join("notes.txt"), "").unwrap();
        refuse_for_a_run(out, false).unwrap();
        std::fs::write(out.join("config.json"), "{\"port\": 80}").unwrap();
        refuse_for_a_run(out, false).unwrap();
        for name in FILES.into_iter().chain([CONFIG, SUMMARY, "report.html"]) {
            std::fs::write(out.join(name), "{\"model_type\": \"vit\"}").unwrap();
            let message = refuse_for_a_run(out, false).unwrap_err();
            assert!(message.contains(name) && message.contains("another --out"), "{message}");
            refuse_for_a_run(out, true).unwrap();
            std::fs::remove_file(out.join(name)).unwrap();
        }
        std::fs::create_dir(out.join(SUMMARY)).unwrap();
        assert!(
            refuse_for_a_run(out, true)
                .unwrap_err()
                .contains("summary.json is a folder")
        );
        std::fs::remove_dir(out.join(SUMMARY)).unwrap();
        // Results whose settings were removed.
        std::fs::write(out.join("report.html"), "").unwrap();
        std::fs::write(out.join(SUMMARY), "[{\"experiment\": \"vtab\", \"task\": \"digits\"}]").unwrap();
        refuse_for_a_run(out, false).unwrap();
    }

    #[test]
    fn a_training_replaces_no_adapter_but_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("digits/lora");
        refuse_another_adapter(&folder).unwrap();
        std::fs::create_dir_all(folder.join("adapter")).unwrap();
        refuse_another_adapter(&folder).unwrap();
        std::fs::write(folder.join("adapter/adapter_config.json"), "{}").unwrap();
        let message = refuse_another_adapter(&folder).unwrap_err();
        assert!(
            message.contains("digits/lora/adapter/adapter_config.json is not of a training"),
            "{message}"
        );
        std::fs::write(folder.join("metrics.jsonl"), "").unwrap();
        refuse_another_adapter(&folder).unwrap();
    }
}
