//! Which tensor of a checkpoint is which parameter.

use std::collections::BTreeSet;

use burn::module::Module;
use wegeft::site::{self, ParamInfo};
use wegeft::storage::Names;

use crate::lm::import::transposed;
use crate::lm::shards::Shards;

/// Names that a parameter may have on disk. `prefix` is what files of the bare model leave out (`bert`).
pub(super) fn candidates(full: &str, prefix: &str) -> Vec<String> {
    let mut names = vec![full.to_string()];
    if let Some(bare) = full.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) {
        names.push(bare.to_string());
        // Gemma 3 with images puts its text model deeper.
        names.push(format!("language_model.{full}"));
        names.push(format!("model.language_model.{bare}"));
    }
    // The first checkpoints of BERT call the parts of a norm as TensorFlow does.
    for index in 0..names.len() {
        for (new, old) in [
            ("LayerNorm.weight", "LayerNorm.gamma"),
            ("LayerNorm.bias", "LayerNorm.beta"),
        ] {
            if let Some(start) = names[index].strip_suffix(new) {
                names.push(format!("{start}{old}"));
            }
        }
    }
    names
}

/// Which parameters of a module the file has, and which it lacks.
pub(super) struct Found {
    /// Path in the module -> (parameter, name in the file), for parameters in the file.
    pub names: Names,
    /// Parameters that are not in the file.
    pub missing: Vec<ParamInfo>,
    /// Descriptions of tensors with another shape.
    pub misshapen: Vec<String>,
}

/// Looks for every parameter of `module`. `conv1d`: linear weights are stored as `[d_in, d_out]` (GPT-2).
pub(super) fn find<M: Module>(module: &M, prefix: &str, conv1d: bool, shards: &Shards) -> Found {
    let mut found = Found {
        names: Names::new(),
        missing: Vec::new(),
        misshapen: Vec::new(),
    };
    for param in site::params(module) {
        let names = candidates(&param.torch_name(), prefix);
        let entry = names
            .into_iter()
            .find_map(|name| Some((shards.tensors().get(&name)?, name)));
        let Some((entry, name)) = entry else {
            found.missing.push(param);
            continue;
        };
        let mut expected = param.shape.clone();
        if transposed(&param, conv1d) {
            expected.reverse();
        }
        if entry.shape != expected {
            let problem = format!("'{name}' has shape {:?}, expected {expected:?}", entry.shape);
            found.misshapen.push(problem);
        }
        found.names.insert(param.path.clone(), (param, name));
    }
    found
}

/// Tensors that are not read: those of other heads and old buffers, and unexpected ones.
pub(super) fn surplus(read: &[&Names], prefix: &str, shards: &Shards) -> (Vec<String>, Vec<String>) {
    let read: BTreeSet<&String> = read
        .iter()
        .flat_map(|names| names.values().map(|(_, name)| name))
        .collect();
    let rest = shards.tensors().keys().filter(|name| !read.contains(name)).cloned();
    rest.partition(|name| {
        let bare = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
        is_of_another_head(bare.unwrap_or(name))
    })
}

/// Heads of pretraining and of other tasks, and what older files store though it is computed.
fn is_of_another_head(name: &str) -> bool {
    const HEADS: [&str; 17] = [
        "cls.",
        "classifier.",
        "decoder.",
        "discriminator_predictions.",
        "generator_lm_head.",
        "generator_predictions.",
        "head.",
        "lm_head.",
        "lm_predictions.",
        "mask_predictions.",
        "pooler.",
        "pre_classifier.",
        "qa_outputs.",
        "score.",
        "vocab_layer_norm.",
        "vocab_projector.",
        "vocab_transform.",
    ];
    HEADS.iter().any(|head| name.starts_with(head))
        || name.contains("vision_tower.")
        || name.contains("multi_modal_projector.")
        || name.ends_with("embeddings.position_ids")
        || name.ends_with("embeddings.token_type_ids")
        || name.ends_with("rotary_emb.inv_freq")
        || name.ends_with(".attn.bias")
        || name.ends_with(".attn.masked_bias")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_bare_and_of_old_files() {
        let names = candidates("bert.embeddings.LayerNorm.weight", "bert");
        for name in [
            "embeddings.LayerNorm.weight",
            "bert.embeddings.LayerNorm.gamma",
            "embeddings.LayerNorm.gamma",
        ] {
            assert!(names.iter().any(|found| found == name), "{names:?}");
        }
        assert_eq!(candidates("classifier.bias", "bert"), ["classifier.bias"]);
    }
}
