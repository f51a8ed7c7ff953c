//! Labels from the contents of a label field.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::Number;

use super::{RawTexts, TextItem};
use crate::language::TextError;

/// The class names in `texts`: those that the file names (a parquet file of Hugging Face's datasets); otherwise its labels,
/// in numerical order if all are integers, else in alphabetical order.
///
/// # Errors
/// A text without a label, or only one class.
pub fn class_names(texts: &RawTexts) -> Result<Vec<String>, TextError> {
    if texts.classes.len() > 1 {
        return Ok(texts.classes.clone());
    }
    let mut names = BTreeSet::new();
    for (index, item) in texts.items.iter().enumerate() {
        let Some(label) = &item.label else {
            return Err(texts.error(index, "no label; give the field that has it".into()));
        };
        names.insert(label.clone());
    }
    let names = sorted_names(names);
    match &names[..] {
        [one] => Err(texts.error(0, format!("all labels are '{one}'; a classifier needs two"))),
        _ => Ok(names),
    }
}

/// `names` in numerical order if all are integers, else in alphabetical order. If all are numbers, spellings of one whole
/// number (1 and 1.0) are one name, as in a column of numbers in pandas: a missing label turns the integers of such a
/// column into fractions, and only in the file that has it.
pub(crate) fn sorted_names(names: BTreeSet<String>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().collect();
    if are_numbers(&names) {
        let mut seen = HashSet::new();
        // "1" is before "1.0".
        names.retain(|name| whole(name).is_none_or(|number| seen.insert(number)));
    }
    if names.iter().all(|name| name.parse::<i64>().is_ok()) {
        names.sort_by_key(|name| name.parse::<i64>().unwrap_or_default());
    }
    names
}

/// True if all are numbers as JSON has them: "01" and "v1" are names.
fn are_numbers(names: &[String]) -> bool {
    names.iter().all(|name| serde_json::from_str::<Number>(name).is_ok())
}

/// The whole number that `label` is, whether it has a fraction of 0 or none.
fn whole(label: &str) -> Option<i64> {
    // Beyond it, a float is not one integer.
    const MOST: f64 = (1_i64 << 53) as f64;
    let number: Number = serde_json::from_str(label).ok()?;
    number.as_i64().or_else(|| {
        let number = number.as_f64().filter(|number| number.fract() == 0.0)?;
        (number.abs() < MOST).then_some(number as i64)
    })
}

/// Classes by name.
pub(crate) struct Classes<'a> {
    exact: HashMap<&'a str, usize>,
    /// Those that are whole numbers, if all are numbers.
    whole: HashMap<i64, usize>,
}

impl<'a> Classes<'a> {
    /// The classes of these names, from 0 on.
    pub fn new(names: &'a [String]) -> Self {
        let numbers: &[String] = if are_numbers(names) { names } else { &[] };
        let whole = numbers
            .iter()
            .zip(0..)
            .filter_map(|(name, at)| Some((whole(name)?, at)));
        Self {
            exact: names.iter().map(String::as_str).zip(0..).collect(),
            whole: whole.collect(),
        }
    }

    /// The class that `label` names, in its spelling or as the same whole number.
    pub fn find(&self, label: &str) -> Option<usize> {
        let found = self.exact.get(label).copied();
        found.or_else(|| self.whole.get(&whole(label)?).copied())
    }
}

/// `texts` with each label as its index in `classes`.
///
/// # Errors
/// A label that is not in `classes`, with its position.
pub fn with_classes(texts: &RawTexts, classes: &[String]) -> Result<Vec<TextItem<usize>>, TextError> {
    let known = Classes::new(classes);
    labelled(texts, |label| {
        let number = label.parse::<usize>().ok();
        let named = number.and_then(|number| texts.classes.get(number));
        // The classes of an adapter may be the file's numbers.
        named
            .and_then(|name| known.find(name))
            .or_else(|| known.find(label))
            .ok_or_else(|| format!("label '{label}' is none of {}", classes.join(", ")))
    })
}

/// `texts` with each label as a number.
///
/// # Errors
/// A label that is not a finite number, with its position.
pub fn with_scores(texts: &RawTexts) -> Result<Vec<TextItem<f32>>, TextError> {
    labelled(texts, |label| match label.trim().parse::<f32>() {
        Ok(score) if score.is_finite() => Ok(score),
        _ => Err(format!(
            "label '{label}' is no number, which a regression needs; name classes instead"
        )),
    })
}

fn labelled<L>(texts: &RawTexts, read: impl Fn(&String) -> Result<L, String>) -> Result<Vec<TextItem<L>>, TextError> {
    let items = texts.items.iter().enumerate();
    items
        .map(|(index, item)| {
            let label = item.label.as_ref().map(&read).transpose();
            Ok(TextItem {
                text: item.text.clone(),
                pair: item.pair.clone(),
                label: label.map_err(|message| texts.error(index, message))?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::texts::{TextFields, read};

    fn texts(folder: &Path, name: &str, text: &str) -> RawTexts {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        read(&path, &TextFields::parse("text", Some("label")).unwrap()).unwrap()
    }

    fn classes(texts: &RawTexts, names: &[String]) -> Vec<Option<usize>> {
        let items = with_classes(texts, names).unwrap();
        items.iter().map(|item| item.label).collect()
    }

    /// As pandas reads a column of numbers.
    #[test]
    fn spellings_of_a_whole_number_are_one_class() {
        let folder = tempfile::tempdir().unwrap();
        let table = "text,label\na,1.0\nb,2\nc,1\nd,2.0\ne,10\n";
        let table = texts(folder.path(), "a.csv", table);
        let names = class_names(&table).unwrap();
        assert_eq!(names, ["1", "2", "10"]);
        assert_eq!(classes(&table, &names), [0, 1, 0, 1, 2].map(Some));
        let lines = [r#"0"#, r#""0""#, "0.0", "1"].map(|label| format!("{{\"text\": \"a\", \"label\": {label}}}\n"));
        let lines = texts(folder.path(), "a.jsonl", &lines.concat());
        let names = class_names(&lines).unwrap();
        assert_eq!(names, ["0", "1"]);
        assert_eq!(classes(&lines, &names), [0, 0, 0, 1].map(Some));
        // Another file has the other spelling.
        let other = texts(folder.path(), "b.csv", "text,label\na,1.0\nb,0\n");
        assert_eq!(classes(&other, &names), [1, 0].map(Some));
    }

    #[test]
    fn names_that_look_like_numbers_keep_their_spelling() {
        let folder = tempfile::tempdir().unwrap();
        for (labels, expected) in [
            (["1.0", "2.0", "1.0"], vec!["1.0", "2.0"]),
            (["1", "1.0", "a"], vec!["1", "1.0", "a"]),
            (["01", "1", "1"], vec!["01", "1"]),
            (["1.5", "1", "2"], vec!["1", "1.5", "2"]),
            (
                ["9007199254740993", "9007199254740992.0", "1"],
                vec!["1", "9007199254740992.0", "9007199254740993"],
            ),
        ] {
            let rows = labels.map(|label| format!("a,{label}\n")).concat();
            let table = texts(folder.path(), "a.csv", &format!("text,label\n{rows}"));
            assert_eq!(class_names(&table).unwrap(), expected);
        }
    }
}
