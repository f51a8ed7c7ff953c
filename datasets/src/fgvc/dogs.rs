//! Stanford Dogs: `Images/SYNSET-BREED/…`, train_list.mat and test_list.mat (in the folder or its `lists`).

use std::collections::BTreeMap;
use std::path::Path;

use super::mat::{self, Value};
use super::{Labelled, Splits};
use crate::error::DataError;
use crate::paths;

/// Reads the two lists; folder names serve as breed names.
pub(super) fn read(folder: &Path) -> Result<Splits, DataError> {
    let mut names = BTreeMap::new();
    let mut part = |name: &str| -> Result<Labelled, DataError> {
        let inner = folder.join("lists").join(name);
        let path = if inner.is_file() { inner } else { folder.join(name) };
        let list = mat::read(&path)?;
        let error = |message: String| DataError::read(&path, message);
        let files = Value::field(&list, "file_list").and_then(Value::cells).map_err(error)?;
        let labels = Value::field(&list, "labels").and_then(Value::numbers).map_err(error)?;
        if files.len() != labels.len() {
            return Err(error(format!("{} files and {} labels", files.len(), labels.len())));
        }
        let mut found = Labelled::new();
        for (file, label) in files.iter().zip(labels) {
            let file = file.text().map_err(error)?;
            let breed = file.split('/').next().and_then(|breed| Some(breed.split_once('-')?.1));
            if let Some(breed) = breed {
                names.insert(*label as i64, breed.to_string());
            }
            let image = paths::within(&folder.join("Images"), file).map_err(error)?;
            found.push((image, *label as i64));
        }
        Ok(found)
    };
    let (train, test) = (part("train_list.mat")?, part("test_list.mat")?);
    Ok(Splits {
        train,
        test,
        names,
        ..Splits::default()
    })
}
