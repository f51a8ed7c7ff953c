//! Oxford Flowers 102: jpg/image_00001.jpg and so on, imagelabels.mat, setid.mat.

use std::path::Path;

use super::mat::{self, Value};
use super::{Labelled, Splits};
use crate::error::DataError;

/// Reads the labels and the three lists of image numbers, which count from 1.
pub(super) fn read(folder: &Path) -> Result<Splits, DataError> {
    let labels_path = folder.join("imagelabels.mat");
    let labels = mat::read(&labels_path)?;
    let labels = Value::field(&labels, "labels")
        .and_then(Value::numbers)
        .map_err(|message| DataError::read(&labels_path, message))?;
    let sets_path = folder.join("setid.mat");
    let sets = mat::read(&sets_path)?;
    let error = |message: String| DataError::read(&sets_path, message);
    let part = |name: &str| -> Result<Labelled, DataError> {
        let numbers = Value::field(&sets, name).and_then(Value::numbers).map_err(error)?;
        let image = |number: &f64| {
            let index = *number as usize;
            match labels.get(index.wrapping_sub(1)) {
                Some(label) => Ok((folder.join(format!("jpg/image_{index:05}.jpg")), *label as i64)),
                None => Err(error(format!(
                    "'{name}' has image {number}; there are labels of 1 to {}",
                    labels.len()
                ))),
            }
        };
        numbers.iter().map(image).collect()
    };
    Ok(Splits {
        train: part("trnid")?,
        valid: Some(part("valid")?),
        test: part("tstid")?,
        ..Splits::default()
    })
}
