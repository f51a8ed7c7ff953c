//! `adapter inspect`: the config and the tensors of an adapter folder.

use std::path::Path;

use serde_json::Value;
use wegeft::site::kind;
use wegeft::storage::{PREFIX, Stored, read_weights};

use super::table;
use crate::cli::output::print;

/// Prints both tables.
pub fn inspect(folder: &Path, all: bool) -> Result<(), String> {
    let config = wegeft::read_config(folder).map_err(|e| e.to_string())?;
    let (tensors, _) = read_weights(folder).map_err(|e| e.to_string())?;
    let fields = serde_json::to_value(&config).map_err(|e| e.to_string())?;
    let known = fields.as_object().into_iter().flatten();
    let kept = config.extra.iter().filter(|(_, value)| !value.is_null());
    let known = known
        .filter(|(name, value)| !config.extra.contains_key(name.as_str()) && !is_empty(value))
        .map(|(name, value)| (name, value, ""));
    let kept = kept.map(|(name, value)| (name, value, "kept as it is"));
    let rows = known
        .chain(kept)
        .map(|(name, value, note)| [name.clone(), shown(value), note.to_string()]);
    print(format_args!(
        "{}\n",
        table(["field", "value", "note"], rows.collect(), 3)
    ))?;
    let mut rows: Vec<Row> = Vec::new();
    for (name, tensor) in &tensors {
        let short = name.strip_prefix(PREFIX).unwrap_or(name);
        let row = Row::of(if all { short.to_string() } else { kind(short) }, tensor);
        match rows
            .iter_mut()
            .find(|known| known.name == row.name && known.shape == row.shape)
        {
            Some(known) => known.add(row),
            None => rows.push(row),
        }
    }
    let values: usize = rows.iter().map(|row| row.values).sum();
    let bad: usize = rows.iter().map(|row| row.not_finite).sum();
    let header = ["tensor", "count", "shape", "values", "norm", "greatest", "not finite"];
    print(table(header, rows.into_iter().map(Row::cells).collect(), 1))?;
    print(format_args!(
        "\n{} tensors, {values} values, {:.1} kB as f32",
        tensors.len(),
        values as f64 * 4.0 / 1e3
    ))?;
    match bad {
        0 => Ok(()),
        _ => Err(format!(
            "{}: {bad} values are not finite; the adapter is damaged",
            folder.display()
        )),
    }
}

/// Tensors with the same name (apart from layer numbers) and shape.
struct Row {
    name: String,
    count: usize,
    shape: Vec<usize>,
    values: usize,
    squares: f64,
    greatest: f32,
    not_finite: usize,
}

impl Row {
    fn of(name: String, tensor: &Stored) -> Self {
        let finite = || tensor.values.iter().filter(|value| value.is_finite());
        Self {
            name,
            count: 1,
            shape: tensor.shape.clone(),
            values: tensor.values.len(),
            squares: finite().map(|value| f64::from(*value).powi(2)).sum(),
            greatest: finite().fold(0.0, |greatest, value| greatest.max(value.abs())),
            not_finite: tensor.values.len() - finite().count(),
        }
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.values += other.values;
        self.squares += other.squares;
        self.greatest = self.greatest.max(other.greatest);
        self.not_finite += other.not_finite;
    }

    fn cells(self) -> [String; 7] {
        [
            self.name,
            self.count.to_string(),
            format!("{:?}", self.shape),
            self.values.to_string(),
            format!("{:.4}", self.squares.sqrt()),
            format!("{:.4}", self.greatest),
            self.not_finite.to_string(),
        ]
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// A value without quotes; a long list is shortened to its length and first items.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.len() > 4 => {
            let first: Vec<String> = items[..3].iter().map(shown).collect();
            format!("{} of them: {}, …", items.len(), first.join(", "))
        }
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
