//! The split files that VPT and TOAST distribute: train.json, val.json and test.json, each `{"path": class}`.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::Value;

use super::{Labelled, Splits};
use crate::error::DataError;
use crate::{paths, text_file};

/// Folders to which the paths may be relative.
const FROM: [&str; 4] = ["", "images", "Images", "jpg"];

/// Reads the three files; `None` if there is no train.json in `folder`.
pub(super) fn read(folder: &Path) -> Result<Option<Splits>, DataError> {
    if !folder.join("train.json").is_file() {
        return Ok(None);
    }
    let (train, test) = (part(folder, "train.json")?, part(folder, "test.json")?);
    let valid = match folder.join("val.json").is_file() {
        true => Some(part(folder, "val.json")?),
        false => None,
    };
    Ok(Some(Splits {
        train,
        valid,
        test,
        ..Splits::default()
    }))
}

fn part(folder: &Path, name: &str) -> Result<Labelled, DataError> {
    let path = folder.join(name);
    let error = |message: String| DataError::read(&path, message);
    let text = text_file::read(&path).map_err(error)?;
    let Entries(entries) = serde_json::from_str(&text).map_err(|e| error(e.to_string()))?;
    let Some((first, _)) = entries.first() else {
        return Err(error("it is empty; expected {\"path\": class}".into()));
    };
    let places: Vec<PathBuf> = FROM.iter().map(|from| folder.join(from)).collect();
    let from = places.iter().find(|place| place.join(first).is_file()).ok_or_else(|| {
        error(format!(
            "its first image, {first}, is neither in the folder nor in images or jpg"
        ))
    })?;
    let labelled = |(image, class): (String, Value)| {
        let number = class.as_i64().or_else(|| class.as_str()?.parse().ok());
        match number {
            Some(class) => Ok((paths::within(from, &image).map_err(error)?, class)),
            None => Err(error(format!("class {class} of {image} is not a whole number"))),
        }
    };
    entries.into_iter().map(labelled).collect()
}

/// The members of a JSON object in order. A duplicate member is an error, which a map would hide.
struct Entries(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of paths and classes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let (mut entries, mut seen) = (Vec::new(), HashSet::new());
                while let Some((path, class)) = map.next_entry::<String, Value>()? {
                    if !seen.insert(path.clone()) {
                        return Err(de::Error::custom(format!("'{path}' occurs twice")));
                    }
                    entries.push((path, class));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Members)
    }
}
