//! A language model with an adapter.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use backbones::lm::Decoder;
use safetensors::tensor::Metadata;
use wegeft::Adapted;

use crate::train::precision::trained_in_f32;

/// `model` with the adapter of `folder` bound to it, or merged into its weights.
///
/// # Errors
/// An adapter that cannot be read or does not fit.
pub fn adapted(model: Decoder, folder: &Path, merge: bool) -> Result<Decoder, String> {
    let adapted = with_adapter(model, folder)?;
    if merge {
        return adapted.merge().map_err(|e| e.to_string());
    }
    Ok(adapted.bind())
}

/// `model` with the adapter of `folder`.
///
/// # Errors
/// An adapter that cannot be read or does not fit.
pub fn with_adapter(model: Decoder, folder: &Path) -> Result<Adapted<Decoder>, String> {
    let config = wegeft::read_config(folder).map_err(|e| e.to_string())?;
    let model = match vocabulary(folder) {
        Some(rows) => model.with_vocabulary(rows),
        None => model,
    };
    let adapted = config.load(model, folder).map_err(|e| e.to_string())?;
    Ok(trained_in_f32(adapted))
}

/// Rows of the embedding or head that an adapter of `folder` holds, if it holds one: PEFT stores them when the tokenizer
/// got new tokens before training. A file that cannot be read is for the loading to refuse.
fn vocabulary(folder: &Path) -> Option<usize> {
    const MOST: u64 = 100_000_000;
    let path = folder.join("adapter_model.safetensors");
    let mut file = File::open(&path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let mut header = Vec::new();
    file.take(u64::from_le_bytes(length).min(MOST))
        .read_to_end(&mut header)
        .ok()?;
    let metadata: Metadata = serde_json::from_slice(&header).ok()?;
    // Room is made for what is really there.
    let size = std::fs::metadata(&path).ok()?.len();
    if header.len() as u64 + 8 + metadata.data_len() as u64 != size {
        return None;
    }
    let mut tensors = metadata.tensors().into_iter();
    let whole = |name: &str| {
        ["embed_tokens.weight", "wte.weight", "lm_head.weight"]
            .iter()
            .any(|end| name.ends_with(end))
    };
    let (_, info) = tensors.find(|(name, info)| whole(name) && info.shape.len() == 2)?;
    info.shape.first().copied().filter(|rows| *rows > 0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use backbones::lm::{LoadOptions, Precision, load_lm};
    use burn::module::{Module, ModuleVisitor, Param, ParamId};
    use burn::tensor::{Device, Tensor};
    use wegeft::AdapterConfig;

    use super::*;
    use crate::cli::shipped;

    /// (types of what is trained, types of what is not)
    #[derive(Default)]
    struct Types(HashSet<ParamId>, HashSet<String>, HashSet<String>);

    impl ModuleVisitor for Types {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let types = if self.0.contains(&param.id) {
                &mut self.1
            } else {
                &mut self.2
            };
            types.insert(format!("{:?}", param.base().dtype()));
        }
    }

    #[test]
    fn what_is_trained_is_f32_and_what_is_frozen_stays_as_it_was_loaded() {
        let device = Device::flex().autodiff();
        let options = LoadOptions {
            precision: Precision::Bf16,
            ..LoadOptions::default()
        };
        let model = load_lm(&shipped::language_model().unwrap(), &options, &device)
            .unwrap()
            .model;
        let types = |config: AdapterConfig| {
            let adapted = trained_in_f32(config.init(model.clone()).unwrap());
            let mut trained: HashSet<ParamId> = adapted.saved_params().into_iter().map(|param| param.id).collect();
            trained.extend(wegeft::site::params(adapted.bank()).into_iter().map(|param| param.id));
            let mut types = Types(trained, HashSet::new(), HashSet::new());
            adapted.visit(&mut types);
            adapted.backbone().visit(&mut types);
            let sorted = |types: HashSet<String>| {
                let mut types: Vec<String> = types.into_iter().collect();
                types.sort();
                types
            };
            (sorted(types.1), sorted(types.2))
        };
        let targets = ["q_proj", "up_proj"];
        for config in [AdapterConfig::wegeft(4), AdapterConfig::lora(4), AdapterConfig::vera(4)] {
            let found = types(config.with_target_modules(targets));
            assert_eq!(found, (vec!["F32".into()], vec!["BF16".into()]));
        }
        let found = types(
            AdapterConfig::lora(4)
                .with_target_modules(targets)
                .with_modules_to_save(["norm"]),
        );
        assert_eq!(found, (vec!["F32".into()], vec!["BF16".into()]));
        assert_eq!(types(AdapterConfig::full()), (vec!["F32".into()], vec![]));
    }
}
