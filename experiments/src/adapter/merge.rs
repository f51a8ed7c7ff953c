//! `adapter merge`: the backbone with the adapter in its weights, as a folder that `--backbone` takes.

use std::path::Path;

use backbones::Pool;
use backbones::import::names;
use serde_json::json;
use wegeft::storage::{collect, write_tensors};

use super::open::Opened;
use super::table;
use crate::output::print;
use crate::run::write_json;

/// Writes the folder and prints what changed.
pub fn merge(opened: &Opened, out: &Path) -> Result<(), String> {
    let config = &opened.pretrained.config;
    if config.rope_theta.is_some() {
        return Err(
            "timm's config.json, which the merged folder has, cannot describe rotary positions; \
            keep the adapter beside this backbone"
                .into(),
        );
    }
    let (merged, report) = opened.adapted.merge_with_report().map_err(|e| e.to_string())?;
    std::fs::create_dir_all(out).map_err(|e| format!("cannot make {}: {e}", out.display()))?;
    let tensors = collect(&merged, &names(&merged));
    write_tensors(&out.join("model.safetensors"), &tensors).map_err(|e| e.to_string())?;
    let normalization = opened.pretrained.normalization;
    let classes = opened
        .description
        .as_ref()
        .map(|d| d.classes.clone())
        .unwrap_or_default();
    let description = json!({
        "architecture": format!("vit_merged_patch{}_{}", config.patch_size, config.image_size),
        "num_heads": config.heads, "layer_norm_eps": config.layer_norm_eps, "hidden_act": config.activation,
        "global_pool": match config.pool {
            Pool::Cls => Some("token"),
            Pool::Mean => Some("avg"),
            Pool::Attention => None,
        },
        "mean": normalization.mean, "std": normalization.std, "label_names": classes,
    });
    write_json(&out.join("config.json"), &description)?;
    let rows = report.changes.iter().map(|change| {
        [
            change.site.clone(),
            format!("{:.3e}", change.greatest),
            format!("{:?}", change.at),
            format!("{:.3e}", change.relative),
        ]
    });
    let header = ["weight", "greatest change", "at", "relative norm"];
    print(table(header, rows.collect(), 1))?;
    print(format_args!("\n{report}; written to {}", out.display()))
}
