//! Stanford Cars, in both of its archives' layouts: cars_train/, cars_test/ and devkit/, or car_ims/ and
//! cars_annos.mat.

use std::path::Path;

use super::mat::{self, Value};
use super::{Labelled, Splits};
use crate::error::DataError;
use crate::paths;

/// Reads the annotations; those of the test part must include labels.
pub(super) fn read(folder: &Path) -> Result<Splits, DataError> {
    let all = folder.join("cars_annos.mat");
    if all.is_file() {
        return together(folder, &all);
    }
    let find = |names: [&str; 2]| {
        let paths = names.map(|name| folder.join(name));
        let found = paths.iter().find(|path| path.is_file());
        found.unwrap_or(&paths[0]).clone()
    };
    let train = find(["devkit/cars_train_annos.mat", "cars_train_annos.mat"]);
    let test = find([
        "devkit/cars_test_annos_withlabels.mat",
        "cars_test_annos_withlabels.mat",
    ]);
    let meta = find(["devkit/cars_meta.mat", "cars_meta.mat"]);
    let names = mat::read(&meta)?;
    Ok(Splits {
        train: annotations(&train, &folder.join("cars_train"), "fname")?.0,
        test: annotations(&test, &folder.join("cars_test"), "fname")?.0,
        names: class_names(&meta, &names)?,
        ..Splits::default()
    })
}

/// Reads a single list, in which `test` distinguishes the splits.
fn together(folder: &Path, path: &Path) -> Result<Splits, DataError> {
    let (labelled, variables) = annotations(path, folder, "relative_im_path")?;
    let error = |message: String| DataError::read(path, message);
    let elements = Value::field(&variables, "annotations")
        .and_then(Value::elements)
        .map_err(error)?;
    let mut splits = Splits {
        names: class_names(path, &variables)?,
        ..Splits::default()
    };
    for (labelled, element) in labelled.into_iter().zip(elements) {
        let tests = Value::field(element, "test").and_then(Value::number).map_err(error)?;
        let part = if tests == 0.0 {
            &mut splits.train
        } else {
            &mut splits.test
        };
        part.push(labelled);
    }
    Ok(splits)
}

fn annotations(path: &Path, images: &Path, file: &str) -> Result<(Labelled, mat::Struct), DataError> {
    let variables = mat::read(path)?;
    let error = |message: String| DataError::read(path, message);
    let elements = Value::field(&variables, "annotations")
        .and_then(Value::elements)
        .map_err(error)?;
    let labelled = elements
        .iter()
        .map(|element| {
            let name = Value::field(element, file)?.text()?;
            let class = Value::field(element, "class")?.number()?;
            Ok((paths::within(images, name)?, class as i64))
        })
        .collect::<Result<Labelled, String>>()
        .map_err(error)?;
    Ok((labelled, variables))
}

/// `class_names`, counted from 1.
fn class_names(path: &Path, variables: &mat::Struct) -> Result<std::collections::BTreeMap<i64, String>, DataError> {
    let names = Value::field(variables, "class_names").and_then(Value::cells);
    names
        .and_then(|names| {
            let names = names.iter().enumerate();
            names
                .map(|(index, name)| Ok((index as i64 + 1, name.text()?.to_string())))
                .collect()
        })
        .map_err(|message| DataError::read(path, message))
}
