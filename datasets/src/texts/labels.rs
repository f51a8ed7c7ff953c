//! Labels from the contents of a label field.

use std::collections::BTreeSet;

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
    let mut names: Vec<String> = names.into_iter().collect();
    if let Ok(mut numbers) = names
        .iter()
        .map(|name| name.parse::<i64>())
        .collect::<Result<Vec<_>, _>>()
    {
        numbers.sort_unstable();
        names.sort_by_key(|name| name.parse::<i64>().unwrap_or_default());
    }
    match &names[..] {
        [one] => Err(texts.error(0, format!("all labels are '{one}'; a classifier needs two"))),
        _ => Ok(names),
    }
}

/// `texts` with each label as its index in `classes`.
///
/// # Errors
/// A label that is not in `classes`, with its position.
pub fn with_classes(texts: &RawTexts, classes: &[String]) -> Result<Vec<TextItem<usize>>, TextError> {
    labelled(texts, |label| {
        let number = label.parse::<usize>().ok();
        let named = number.and_then(|number| texts.classes.get(number));
        let position = |label: &String| classes.iter().position(|class| class == label);
        // The classes of an adapter may be the file's numbers.
        named
            .and_then(position)
            .or_else(|| position(label))
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
