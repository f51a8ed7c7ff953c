//! Labels of pictures, and how predictions compare with them.

use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table, presets};
use datasets::lists;

/// Most classes whose matrix is printed whole.
const MOST_CLASSES: usize = 20;

/// Reads a list of lines `path label`: paths relative to the list's folder, labels numbers from 0 or names among
/// `classes`, one kind for the whole list. The model tells `count` classes apart.
///
/// # Errors
/// A file that cannot be read, a line of another form, a label outside the classes, an empty list.
pub fn read_labels(path: &Path, classes: &[String], count: usize) -> Result<(Vec<PathBuf>, Vec<usize>), String> {
    let entries = lists::read_with(path, classes).map_err(|e| e.to_string())?;
    lists::check_labels(path, &entries, count).map_err(|e| e.to_string())?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let labelled = entries.into_iter();
    Ok(labelled.map(|entry| (folder.join(entry.path), entry.label)).unzip())
}

/// Counts of label against prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Confusion {
    /// `counts[label][predicted]`
    pub counts: Vec<Vec<usize>>,
    /// Pictures whose label is among the k most likely classes.
    pub in_top_k: usize,
}

impl Confusion {
    /// Compares `labels` with the classes that each picture's `ranked` row starts with, most likely first; a row of at
    /// least one. `classes` is the number of classes, above every label.
    pub fn new(labels: &[usize], ranked: &[Vec<usize>], classes: usize) -> Self {
        let mut counts = vec![vec![0; classes]; classes];
        for (label, row) in labels.iter().zip(ranked) {
            counts[*label][row[0]] += 1;
        }
        let in_top_k = labels
            .iter()
            .zip(ranked)
            .filter(|(label, row)| row.contains(label))
            .count();
        Self { counts, in_top_k }
    }

    /// Pictures.
    pub fn total(&self) -> usize {
        self.counts.iter().flatten().sum()
    }

    /// Pictures whose most likely class is their label.
    pub fn right(&self) -> usize {
        (0..self.counts.len()).map(|class| self.counts[class][class]).sum()
    }

    /// The matrix as a table, labels down and predictions across; of many classes the most frequent mistakes instead.
    pub fn table(&self, name: impl Fn(usize) -> String) -> String {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        let side = self.counts.len();
        if side <= MOST_CLASSES {
            table.set_header(
                ["label \\ predicted".to_string()]
                    .into_iter()
                    .chain((0..side).map(&name)),
            );
            for (label, row) in self.counts.iter().enumerate() {
                table.add_row([name(label)].into_iter().chain(row.iter().map(usize::to_string)));
            }
        } else {
            table.set_header(["label", "predicted", "pictures"]);
            let off = |label: usize| (0..side).filter(move |predicted| *predicted != label);
            let mut wrong: Vec<(usize, usize, usize)> = (0..side)
                .flat_map(|label| off(label).map(move |predicted| (label, predicted)))
                .map(|(label, predicted)| (self.counts[label][predicted], label, predicted))
                .filter(|(count, ..)| *count > 0)
                .collect();
            wrong.sort_by_key(|(count, label, predicted)| (std::cmp::Reverse(*count), *label, *predicted));
            wrong.truncate(MOST_CLASSES);
            for (count, label, predicted) in wrong {
                table.add_row([name(label), name(predicted), count.to_string()]);
            }
        }
        for column in table.column_iter_mut().skip(if side <= MOST_CLASSES { 1 } else { 2 }) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_numbers_or_names() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("list.txt");
        let classes = ["cat".to_string(), "dog".to_string()];
        std::fs::write(&list, "a b.png dog\n\nc.png cat\n").unwrap();
        let (pictures, labels) = read_labels(&list, &classes, 2).unwrap();
        assert_eq!((pictures[0].clone(), labels), (dir.path().join("a b.png"), vec![1, 0]));
        for (text, part) in [
            ("c.png 2\n", "line 1"),
            ("c.png 99999999999\n", "out of range"),
            ("a.png dog\nc.png 0\n", "'0'"),
            ("c.png cow\n", "'cow'"),
            ("c.png\n", "path label"),
            ("", "empty"),
        ] {
            std::fs::write(&list, text).unwrap();
            let message = read_labels(&list, &classes, 2).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn counts_are_label_by_prediction() {
        let confusion = Confusion::new(&[0, 0, 1, 2], &[vec![0, 1], vec![1, 0], vec![1, 2], vec![0, 1]], 3);
        assert_eq!(confusion.counts, [[1, 1, 0], [0, 1, 0], [1, 0, 0]]);
        assert_eq!((confusion.right(), confusion.in_top_k, confusion.total()), (2, 3, 4));
        assert!(confusion.table(|class| format!("c{class}")).contains("| c2 "));
        let many = Confusion::new(&[3, 3, 5], &[vec![4], vec![4], vec![6]], 30);
        let table = many.table(|class| class.to_string());
        assert_eq!(table.lines().count(), 4, "{table}");
    }
}
