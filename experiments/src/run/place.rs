//! Which folder a program may write a model or an adapter to: a new one, or that of its own earlier result. A mark in the
//! folder says which program made it.

use std::path::Path;

use crate::run::folder::is_of_a_run;

/// Name of the mark.
pub const MARK: &str = ".made-by";
/// Bytes of a mark at most.
const LONGEST: u64 = 1 << 10;

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

/// The content of the mark of `program`.
pub fn mark(program: &str) -> Vec<u8> {
    format!("wegeft {program}\n").into_bytes()
}

/// True if `out` is an earlier result of `program`.
pub fn is_made_by(out: &Path, program: &str) -> bool {
    files::read_limited(&out.join(MARK), LONGEST).is_ok_and(|found| found == mark(program))
}

/// Refuses an `out` of a run, and one that holds a model or an adapter, unless `is_own`.
///
/// # Errors
/// A folder whose files the result would replace, or which would be that of two models.
pub fn refuse_another(out: &Path, is_own: bool) -> Result<(), String> {
    let there = FILES.iter().find(|name| out.join(name).exists()).filter(|_| !is_own);
    let why = match there {
        _ if is_of_a_run(out) => "belongs to a run, whose files would be replaced".to_string(),
        Some(name) => format!("holds {name} of another model or adapter"),
        None => return Ok(()),
    };
    Err(format!("{} {why}; choose another folder", out.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_own_result_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let refused = |program: &str| refuse_another(&out, is_made_by(&out, program));
        refused("adapter merge").unwrap();
        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join("notes.txt"), "").unwrap();
        refused("adapter merge").unwrap();
        for name in FILES {
            std::fs::write(out.join(name), "").unwrap();
            let message = refused("adapter merge").unwrap_err();
            assert!(
                message.contains(name) && message.contains("another folder"),
                "{message}"
            );
            std::fs::write(out.join(MARK), mark("adapter merge")).unwrap();
            refused("adapter merge").unwrap();
            assert!(refused("adapter convert").is_err());
            for file in [MARK, name] {
                std::fs::remove_file(out.join(file)).unwrap();
            }
        }
        // A run's adapter is not an own result either.
        let adapter = dir.path().join("run/adapter");
        std::fs::create_dir_all(&adapter).unwrap();
        std::fs::write(dir.path().join("run/metrics.jsonl"), "").unwrap();
        assert!(refuse_another(&adapter, true).unwrap_err().contains("belongs to a run"));
    }
}
