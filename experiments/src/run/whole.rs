//! Whether the adapter of a finished trial is there and whole.

use std::path::Path;

use wegeft::storage::{WEIGHTS_FILE, read_config, read_weights};

/// Bytes of weights that are read for this at most: more would make a finished run slow to start again.
const MOST: u64 = 64 << 20;

/// True if the adapter in the folder of a trial has a readable config and weights without damage.
pub fn has_adapter(trial: &Path) -> bool {
    let adapter = trial.join("adapter");
    let size = files::current(&adapter.join(WEIGHTS_FILE)).metadata();
    let is_large = size.is_ok_and(|data| data.len() > MOST);
    read_config(&adapter).is_ok() && (is_large || read_weights(&adapter).is_ok())
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        assert!(!has_adapter(dir.path()));
        let layer = LinearConfig::new(4, 4).init(&Device::flex());
        let config = AdapterConfig::lora(2).with_target_modules(["layer"]);
        config
            .init(Net { layer })
            .unwrap()
            .save(dir.path().join("adapter"))
            .unwrap();
        assert!(has_adapter(dir.path()));
        let weights = dir.path().join("adapter").join(WEIGHTS_FILE);
        let whole = fs::read(&weights).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for damaged in [&flipped[..], &whole[..whole.len() / 2], &[]] {
            fs::write(&weights, damaged).unwrap();
            assert!(!has_adapter(dir.path()));
        }
        fs::write(&weights, &whole).unwrap();
        assert!(has_adapter(dir.path()));
        fs::write(dir.path().join("adapter/adapter_config.json"), "{").unwrap();
        assert!(!has_adapter(dir.path()));
    }
}
