//! `adapter merge` of a vision transformer: writes the backbone with the adapter merged into its weights, as a folder
//! that `--model` accepts and that the library behind the backbone (transformers, timm) can load.

use std::path::Path;

use burn::tensor::Device;
use wegeft::MergeReport;
use wegeft::storage::write_tensors;

use super::open::Vision;
use super::{MERGE, refuse_its_own, table};
use crate::cli::output::{note, print};
use crate::run::files::{replace_together, write_json};
use crate::run::lock::Lock;
use crate::train::agreement;
use crate::vision::description::Description;

/// Writes the folder and prints what changed.
pub fn merge(opened: &Vision, out: &Path, device: &Device) -> Result<(), String> {
    let pretrained = &opened.pretrained;
    refuse_its_own(out, "backbone", &opened.path)?;
    let (merged, report) = opened.adapted.merge_with_report().map_err(|e| e.to_string())?;
    agreement::of_vision(&opened.adapted, &merged, pretrained.config.image(), device)
        .map_err(|e| format!("{e}; nothing was written"))?;
    let classes = match &opened.description {
        Some(description) => &description.classes,
        None => &pretrained.labels,
    };
    let mut exported = pretrained
        .layout
        .export(&merged, &pretrained.config, classes)
        .map_err(|e| e.to_string())?;
    // A head that was trained here is for one class per image, whatever the backbone's own was for.
    if let (Some(_), Some(fields)) = (&opened.description, exported.config.as_object_mut()) {
        fields.remove("problem_type");
    }
    let _lock = Lock::for_writing(out)?;
    replace_together(out, Some(MERGE), Some("config.json"), |made| {
        write_tensors(&made.join("model.safetensors"), &exported.tensors).map_err(|e| e.to_string())?;
        for file in &exported.copied {
            let target = made.join(file.file_name().unwrap_or_default());
            files::copy(file, &target)
                .map_err(|e| format!("cannot copy {} to {}: {e}", file.display(), target.display()))?;
        }
        write_json(&made.join("config.json"), &exported.config)?;
        if let Some(description) = &opened.description {
            // Information that config.json cannot hold, such as how images are resized.
            let backbone = std::fs::canonicalize(out).map_err(|e| format!("cannot read {}: {e}", out.display()))?;
            Description {
                backbone: Some(backbone.display().to_string()),
                ..description.clone()
            }
            .write(made)?;
        }
        Ok(())
    })?;
    if let Some(text) = exported.note {
        note(text);
    }
    show(&report, out)
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
