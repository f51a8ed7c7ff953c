//! Predictions in the format that GLUE's server accepts: lines `index<TAB>prediction`, one file per test set.

use std::path::{Path, PathBuf};

use super::read::GlueItem;
use super::tasks::{GlueTask, Label};
use crate::error::DataError;

/// Writes the predictions for a test set of `task` into `folder`, which is made if absent: `SST-2.tsv`; for MNLI's two
/// variants, `MNLI-m.tsv` and `MNLI-mm.tsv`. Scores are clamped to the range from 0 to 5. Returns the path of the file.
///
/// # Errors
/// A folder or file that cannot be written; an older file is then left unchanged.
///
/// # Panics
/// Predictions whose number or kind differs from that of the items.
pub fn write_predictions(
    folder: &Path,
    task: &GlueTask,
    variant: usize,
    items: &[GlueItem],
    predictions: &[Label],
) -> Result<PathBuf, DataError> {
    assert_eq!(items.len(), predictions.len(), "one prediction for each text");
    let spelled = |label: &Label| match label {
        Label::Class(class) if task.labels_by_name => task.labels[*class].to_string(),
        Label::Class(class) => class.to_string(),
        Label::Score(score) => format!("{:.3}", score.clamp(0.0, 5.0)),
    };
    let mut text = String::from("index\tprediction\n");
    for (number, prediction) in predictions.iter().enumerate() {
        // The server counts lines from 0, regardless of the ids in the file.
        text.push_str(&format!("{number}\t{}\n", spelled(prediction)));
    }
    let name = format!("{}{}", task.name, task.variants[variant].1);
    let path = folder.join(format!("{name}.tsv"));
    files::create_folder(folder).map_err(|e| DataError::write(folder, e))?;
    files::replace(&path, text.as_bytes()).map_err(|e| DataError::write(&path, e))?;
    Ok(path)
}
