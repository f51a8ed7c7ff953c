//! PyTorch's own files, which are pickles in a zip archive or, of old, one after another.

use std::path::Path;

use backbones::lm::{LoadOptions, load_lm};
use backbones::load_vit;
use burn::tensor::Device;
use wegeft::AdapterFiles;

use crate::harness::Reader;
use crate::models::beside_others;
use crate::{beside, bytes_of, written};

const FIXTURES: &str = "crates/backbones/tests/fixtures";
const ADAPTER: &str = "tests/fixtures/policy/pickled";

pub const READERS: &[Reader] = &[
    Reader {
        name: "torch-adapter",
        seeds: || vec![bytes_of(&format!("{ADAPTER}/adapter_model.bin"))],
        repair: Some(checksums),
        read: |folder, bytes| {
            beside(folder, "adapter_config.json", &format!("{ADAPTER}/adapter_config.json"));
            written(folder, "adapter_model.bin", bytes);
            AdapterFiles::read(folder).map(drop).map_err(|e| e.to_string())
        },
    },
    Reader {
        name: "torch-vit",
        seeds: || vec![bytes_of(&format!("{FIXTURES}/pickled/vit/pytorch_model.bin"))],
        repair: Some(checksums),
        read: |folder, bytes| {
            beside(folder, "config.json", &format!("{FIXTURES}/vit/config.json"));
            written(folder, "pytorch_model.bin", bytes);
            let loaded = load_vit(folder, None, 0.0, &Device::flex());
            loaded.map(drop).map_err(|e| e.to_string())
        },
    },
    Reader {
        name: "torch-legacy",
        seeds: || vec![bytes_of(&format!("{FIXTURES}/pickled/llama_legacy/pytorch_model.bin"))],
        repair: None,
        read: |folder, bytes| lm(folder, "pytorch_model.bin", bytes),
    },
    Reader {
        name: "torch-index",
        seeds: || {
            vec![bytes_of(&format!(
                "{FIXTURES}/pickled/llama/pytorch_model.bin.index.json"
            ))]
        },
        repair: None,
        read: |folder, bytes| {
            for shard in ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"] {
                beside(folder, shard, &format!("{FIXTURES}/pickled/llama/{shard}"));
            }
            lm(folder, "pytorch_model.bin.index.json", bytes)
        },
    },
];

fn lm(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    // Its weights would go before those of PyTorch.
    beside_others(folder, &format!("{FIXTURES}/lm/llama"), &["model.safetensors"]);
    written(folder, name, bytes);
    let loaded = load_lm(folder, &LoadOptions::default(), &Device::flex());
    loaded.map(drop).map_err(|e| e.to_string())
}

/// The checksums of an archive's members, which are not compressed.
fn checksums(bytes: &mut [u8]) {
    let word = |bytes: &[u8], at: usize| -> Option<usize> {
        let four = bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(four.try_into().ok()?) as usize)
    };
    let half = |bytes: &[u8], at: usize| -> Option<usize> { Some(word(bytes, at)? & 0xFFFF) };
    // Each member once more in the directory at the end, where its size and its place are.
    let mut at = 0;
    while let Some(found) = bytes
        .get(at..)
        .and_then(|rest| rest.windows(4).position(|four| four == b"PK\x01\x02"))
    {
        let entry = at + found;
        at = entry + 4;
        let member = || {
            let (size, place) = (word(bytes, entry + 20)?, word(bytes, entry + 42)?);
            let start = place + 30 + half(bytes, place.checked_add(26)?)? + half(bytes, place + 28)?;
            Some((place, crc32(bytes.get(start..start.checked_add(size)?)?)))
        };
        let Some((place, sum)) = member() else { continue };
        for at in [entry + 16, place + 14] {
            if let Some(place) = bytes.get_mut(at..at + 4) {
                place.copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32| (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg());
    let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum))
    });
    !sum
}
