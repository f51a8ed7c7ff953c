//! `adapter merge` of a vision transformer: the backbone with the adapter in its weights, as a folder that `--backbone`
//! takes.

use std::path::Path;

use backbones::Pool;
use backbones::import::names;
use serde_json::json;
use wegeft::MergeReport;
use wegeft::storage::{collect, write_tensors};

use super::open::Vision;
use super::table;
use crate::cli::output::print;
use crate::run::files::write_json;
use crate::vision::description::Description;

/// Writes the folder and prints what changed.
pub fn merge(opened: &Vision, out: &Path) -> Result<(), String> {
    let config = &opened.pretrained.config;
    if config.rope_theta.is_some() {
        return Err(
            "timm's config.json, which the merged folder has, cannot describe rotary positions; \
            keep the adapter beside this backbone"
                .into(),
        );
    }
    refuse_the_backbone_s_own(&opened.path, out)?;
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
    if let Some(description) = &opened.description {
        // What config.json cannot say, such as how pictures are resized.
        let backbone = std::fs::canonicalize(out).map_err(|e| format!("cannot read {}: {e}", out.display()))?;
        Description {
            backbone: Some(backbone.display().to_string()),
            ..description.clone()
        }
        .write(out)?;
    }
    show(&report, out)
}

/// An error if `out` is the folder that the backbone was read from.
pub fn refuse_the_backbone_s_own(backbone: &Path, out: &Path) -> Result<(), String> {
    let folder = match backbone.is_file() {
        true => backbone.parent().unwrap_or(Path::new(".")),
        false => backbone,
    };
    let full = |path: &Path| std::fs::canonicalize(path).ok();
    match full(out).is_some_and(|out| full(folder) == Some(out)) {
        true => Err(format!(
            "{} holds the backbone itself, which the merged weights would replace; choose another --out",
            out.display()
        )),
        false => Ok(()),
    }
}

/// Prints what changed.
pub fn show(report: &MergeReport, out: &Path) -> Result<(), String> {
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
