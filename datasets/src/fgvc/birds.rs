//! CUB-200-2011 and NABirds: lists with lines `image-id value`, joined by image id.

use std::collections::HashMap;
use std::path::Path;

use super::Splits;
use crate::error::DataError;
use crate::{paths, text_file};

/// Reads images.txt, image_class_labels.txt, train_test_split.txt (1 means training) and classes.txt.
pub(super) fn read(folder: &Path) -> Result<Splits, DataError> {
    let labels = pairs(folder, "image_class_labels.txt")?;
    let trains = pairs(folder, "train_test_split.txt")?;
    let mut splits = Splits::default();
    for (id, name) in pairs(folder, "classes.txt")?.in_order {
        splits.names.insert(number(folder, "classes.txt", &id)?, name);
    }
    let images = pairs(folder, "images.txt")?;
    for (id, path) in &images.in_order {
        let class = number(folder, "image_class_labels.txt", labels.get(id)?)?;
        let path = paths::within(&folder.join("images"), path).map_err(|m| DataError::read(&images.path, m))?;
        match trains.get(id)? {
            "1" => splits.train.push((path, class)),
            "0" => splits.test.push((path, class)),
            other => {
                let message = format!("image {id} has '{other}', expected 1 (trains) or 0 (tests)");
                return Err(DataError::read(&trains.path, message));
            }
        }
    }
    Ok(splits)
}

/// A list with lines `id value`.
struct Pairs {
    path: std::path::PathBuf,
    in_order: Vec<(String, String)>,
    places: HashMap<String, usize>,
}

impl Pairs {
    fn get(&self, id: &str) -> Result<&str, DataError> {
        let place = self.places.get(id);
        place
            .map(|place| self.in_order[*place].1.as_str())
            .ok_or_else(|| DataError::read(&self.path, format!("there is no line of image {id}")))
    }
}

fn pairs(folder: &Path, name: &str) -> Result<Pairs, DataError> {
    let path = folder.join(name);
    let text = text_file::read(&path).map_err(|message| DataError::read(&path, message))?;
    let (mut in_order, mut places) = (Vec::new(), HashMap::new());
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let error = |message: String| DataError::Line {
            path: path.clone(),
            line: index + 1,
            message,
        };
        let (id, value) = line
            .trim()
            .split_once(char::is_whitespace)
            .ok_or_else(|| error(format!("found '{line}', expected an id and a value")))?;
        if places.insert(id.to_string(), in_order.len()).is_some() {
            return Err(error(format!("id {id} has a line already")));
        }
        in_order.push((id.to_string(), value.trim().to_string()));
    }
    if in_order.is_empty() {
        return Err(DataError::read(
            &path,
            "it is empty; expected lines of an id and a value",
        ));
    }
    Ok(Pairs { path, in_order, places })
}

fn number(folder: &Path, name: &str, text: &str) -> Result<i64, DataError> {
    text.parse()
        .map_err(|_| DataError::read(&folder.join(name), format!("class '{text}' is not a whole number")))
}
