//! The two small models that ship with the program: read from the source tree if there is one; otherwise embedded in
//! the program, which writes them to the user's cache once.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Files of a model: name and content.
type Files = &'static [(&'static str, &'static [u8])];

const BACKBONE: Files = &[
    ("config.json", include_bytes!("../../../datasets/backbone/config.json")),
    (
        "model.safetensors",
        include_bytes!("../../../datasets/backbone/model.safetensors"),
    ),
];

const LANGUAGE_MODEL: Files = &[
    (
        "config.json",
        include_bytes!("../../../datasets/language-model/config.json"),
    ),
    (
        "model.safetensors",
        include_bytes!("../../../datasets/language-model/model.safetensors"),
    ),
    (
        "tokenizer.json",
        include_bytes!("../../../datasets/language-model/tokenizer.json"),
    ),
    (
        "tokenizer_config.json",
        include_bytes!("../../../datasets/language-model/tokenizer_config.json"),
    ),
];

/// Folder of the small vision transformer.
///
/// # Errors
/// A cache that cannot be written.
pub fn backbone() -> Result<PathBuf, String> {
    folder("backbone", BACKBONE)
}

/// Folder of the small language model.
///
/// # Errors
/// A cache that cannot be written.
pub fn language_model() -> Result<PathBuf, String> {
    folder("language-model", LANGUAGE_MODEL)
}

fn folder(name: &str, files: Files) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets").join(name);
    if files.iter().all(|(file, _)| source.join(file).is_file()) {
        return Ok(source);
    }
    unpack(&cache()?, name, files)
}

/// The user's cache folder, by the XDG base directory specification or its counterparts on other systems.
fn cache() -> Result<PathBuf, String> {
    let named = |variable: &str| {
        std::env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let home = || named("HOME").map(|home| home.join(".cache"));
    let found = named("XDG_CACHE_HOME").or_else(|| named("LOCALAPPDATA")).or_else(home);
    found
        .map(|cache| cache.join("wegeft"))
        .ok_or_else(|| "the shipped models have no folder to be unpacked into; set XDG_CACHE_HOME or HOME".into())
}

/// Writes `files` to a folder in `cache` that is named by their checksum, unless they are already there.
fn unpack(cache: &Path, name: &str, files: Files) -> Result<PathBuf, String> {
    let mut sum = Sha256::new();
    for (file, bytes) in files {
        sum.update(file);
        sum.update(bytes);
    }
    let folder = cache.join(format!("{name}-{}", &hex(&sum.finalize())[..16]));
    for (file, bytes) in files {
        let path = folder.join(file);
        if std::fs::read(&path).is_ok_and(|there| there == *bytes) {
            continue;
        }
        files::create_folder(&folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
        files::replace(&path, bytes).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    Ok(folder)
}

/// `bytes` in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_unpacked_once_and_mended() {
        let dir = tempfile::tempdir().unwrap();
        let folder = unpack(dir.path(), "backbone", BACKBONE).unwrap();
        let config = folder.join("config.json");
        let whole = std::fs::read(&config).unwrap();
        std::fs::write(&config, &whole[..9]).unwrap();
        assert_eq!(unpack(dir.path(), "backbone", BACKBONE).unwrap(), folder);
        assert_eq!(std::fs::read(&config).unwrap(), whole);
    }
}
