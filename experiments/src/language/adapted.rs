//! A language model with an adapter.

use std::path::Path;

use backbones::lm::Decoder;
use backbones::lm::adapter::attach;
use wegeft::{Adapted, AdapterFiles};

use crate::cli::output::note;
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
    let files = AdapterFiles::read(folder).map_err(|e| e.to_string())?;
    let adapted = attach(model, files).map_err(|e| e.to_string())?;
    for warning in adapted.warnings() {
        note(format_args!("{}: {warning}", folder.display()));
    }
    Ok(trained_in_f32(adapted))
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
