//! A language model with an adapter.

use std::path::Path;

use backbones::lm::adapter::attach;
use backbones::lm::{Decoder, Precision};
use burn::tensor::Device;
use serde_json::Value;
use wegeft::storage::CONFIG_FILE;
use wegeft::{Adapted, AdapterFiles};

use crate::cli::output::note;
use crate::run::files::LONGEST;
use crate::train::agreement;
use crate::train::precision::trained_in_f32;

/// An adapter is to be merged, into weights that are rounded to `precision`.
#[derive(Debug, Clone, Copy)]
pub struct Merge<'a> {
    /// Of the weights.
    pub precision: Precision,
    /// Of the model.
    pub device: &'a Device,
}

/// `model` with the adapter of `folder` bound to it, or merged into its weights.
///
/// # Errors
/// An adapter that cannot be read or does not fit, or that gives other outputs once it is merged.
pub fn adapted(model: Decoder, folder: &Path, merge: Option<Merge>) -> Result<Decoder, String> {
    let adapted = with_adapter(model, folder)?;
    let Some(Merge { precision, device }) = merge else {
        return Ok(adapted.bind());
    };
    let merged = adapted.merge().map_err(|e| e.to_string())?;
    agreement::of_language(&adapted, &merged, precision, device)
        .map_err(|e| format!("{}: {e}; leave --merge out", folder.display()))?;
    Ok(merged)
}

/// `model` with the adapter of `folder`.
///
/// # Errors
/// An adapter that cannot be read or does not fit.
pub fn with_adapter(model: Decoder, folder: &Path) -> Result<Adapted<Decoder>, String> {
    check_task_type(folder, CAUSAL_LM)?;
    let files = AdapterFiles::read(folder).map_err(|e| e.to_string())?;
    let adapted = attach(model, files).map_err(|e| e.to_string())?;
    for warning in adapted.warnings() {
        note(format_args!("{}: {warning}", folder.display()));
    }
    Ok(trained_in_f32(adapted))
}

/// PEFT's task type of language models.
pub const CAUSAL_LM: &str = "CAUSAL_LM";

/// Refuses an adapter whose task type, in PEFT's names, is not `wanted`. An adapter that names no task type is
/// accepted.
///
/// # Errors
/// The name of the other kind.
pub fn check_task_type(folder: &Path, wanted: &str) -> Result<(), String> {
    let path = folder.join(CONFIG_FILE);
    // Loading the adapter will refuse a file that is not an adapter's config.
    let text = files::at_current(&path, |path| files::read_text(path, LONGEST)).unwrap_or_default();
    let config: Value = serde_json::from_str(&text).unwrap_or_default();
    let Some(kind) = config["task_type"].as_str().filter(|kind| *kind != wanted) else {
        return Ok(());
    };
    let other = match kind {
        CAUSAL_LM => "language models read it (generate, chat, finetune)",
        "SEQ_CLS" => "text classifiers read it (classify, glue)",
        _ => "adapters of that kind are not implemented",
    };
    Err(format!(
        "{}: field 'task_type' is '{kind}', and {wanted} is needed here; {other}",
        path.display()
    ))
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

    /// (types of trained parameters, types of frozen ones)
    #[derive(Default)]
    struct Types(HashSet<ParamId>, HashSet<String>, HashSet<String>, Vec<String>);

    impl ModuleVisitor for Types {
        fn enter_module(&mut self, _name: &str, container_type: &str) {
            self.3.push(container_type.to_string());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.3.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            // A hook for adapters holds no weight.
            if self.3.iter().any(|holder| holder.contains("Hook")) {
                return;
            }
            let types = if self.0.contains(&param.id) {
                &mut self.1
            } else {
                &mut self.2
            };
            types.insert(format!("{:?}", param.base().dtype()));
        }
    }

    #[test]
    fn adapters_of_other_tasks_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let check = |kind: &str| {
            let text = format!("{{\"task_type\": {kind}}}");
            std::fs::write(dir.path().join(CONFIG_FILE), text).unwrap();
            check_task_type(dir.path(), CAUSAL_LM)
        };
        for kind in ["TOKEN_CLS", "FEATURE_EXTRACTION", "SEQ_CLS"] {
            let message = check(&format!("\"{kind}\"")).unwrap_err();
            assert!(message.contains(kind) && message.contains(CONFIG_FILE), "{message}");
        }
        assert_eq!((check("null"), check("\"CAUSAL_LM\"")), (Ok(()), Ok(())));
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
            let mut types = Types(trained, HashSet::new(), HashSet::new(), Vec::new());
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
