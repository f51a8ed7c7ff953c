//! Whether the adapter of a finished trial is there and whole.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value};
use wegeft::storage::{CONFIG_FILE, WEIGHTS_FILE, read_tensors};

/// Bytes of weights that are read for this at most: more would make a finished run slow to start again.
const MOST: u64 = 64 << 20;

/// True if the adapter in the folder of a trial, and the JSON files `beside` it, are there and not damaged. Files that cannot
/// be opened for another reason, such as missing rights, count as whole: whoever uses them says what is wrong, and nothing is
/// trained again.
pub fn has_adapter(trial: &Path, beside: &[&str]) -> bool {
    let adapter = trial.join("adapter");
    let is_json = |path: &Path| {
        let text = files::read_regular(path).unwrap_or_default();
        serde_json::from_slice::<Map<String, Value>>(&text).is_ok()
    };
    let are_tensors = |path: &Path| path.metadata().is_ok_and(|data| data.len() > MOST) || read_tensors(path).is_ok();
    let mut json = [CONFIG_FILE].iter().chain(beside);
    json.all(|name| is_whole(&adapter.join(name), is_json)) && is_whole(&adapter.join(WEIGHTS_FILE), are_tensors)
}

fn is_whole(path: &Path, check: impl FnOnce(&Path) -> bool) -> bool {
    let path = files::current(path);
    match fs::metadata(&path) {
        Ok(data) if data.is_file() => fs::File::open(&path).is_err() || check(&path),
        Ok(_) => false,
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;
    use wegeft::AdapterConfig;

    use super::*;

    #[derive(Module, Debug)]
    struct Net {
        layer: Linear,
    }

    #[test]
    fn a_flipped_bit_and_a_cut_file_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_adapter(dir.path(), &[]));
        let layer = LinearConfig::new(4, 4).init(&Device::flex());
        let config = AdapterConfig::lora(2).with_target_modules(["layer"]);
        let adapter = dir.path().join("adapter");
        config.init(Net { layer }).unwrap().save(&adapter).unwrap();
        assert!(has_adapter(dir.path(), &[]));
        let weights = adapter.join(WEIGHTS_FILE);
        let whole = fs::read(&weights).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for damaged in [&flipped[..], &whole[..whole.len() / 2], &[]] {
            fs::write(&weights, damaged).unwrap();
            assert!(!has_adapter(dir.path(), &[]));
        }
        fs::remove_file(&weights).unwrap();
        fs::create_dir(&weights).unwrap();
        assert!(!has_adapter(dir.path(), &[]));
        fs::remove_dir(&weights).unwrap();
        fs::write(&weights, &whole).unwrap();
        assert!(has_adapter(dir.path(), &[]));
        fs::write(adapter.join(CONFIG_FILE), "{").unwrap();
        assert!(!has_adapter(dir.path(), &[]));
        fs::write(adapter.join(CONFIG_FILE), "{}").unwrap();
        assert!(has_adapter(dir.path(), &[]) && !has_adapter(dir.path(), &["classifier.json"]));
        // Of a later version: not damaged.
        fs::write(adapter.join(CONFIG_FILE), r#"{"peft_type": "NEW"}"#).unwrap();
        assert!(has_adapter(dir.path(), &[]));
    }
}
