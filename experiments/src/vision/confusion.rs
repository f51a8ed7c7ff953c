//! Labels of images, and their comparison with predictions.

use std::path::{Path, PathBuf};

use crate::cli::table::table;

/// Maximum number of classes for which the whole matrix is printed.
const MOST_CLASSES: usize = 20;

/// Reads a list of lines `path label`: paths relative to the list's folder, labels class names among `classes` (which
/// may hold spaces) or numbers from 0. The model has `count` classes. If class names are numbers, a list may contain
/// only one of the two kinds.
///
/// # Errors
/// A file that cannot be read, a malformed line, an unknown label, an empty list.
pub fn read_labels(path: &Path, classes: &[String], count: usize) -> Result<(Vec<PathBuf>, Vec<usize>), String> {
    let text = files::read_text(path, u64::MAX).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let text = text.trim_start_matches('\u{feff}');
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let lines: Vec<(usize, &str)> = lines.map(|(index, line)| (index + 1, line.trim())).collect();
    if lines.is_empty() {
        return Err(format!(
            "{} is empty; expected lines of the form 'path label'",
            path.display()
        ));
    }
    let named: Vec<_> = lines.iter().map(|(_, line)| by_name(line, classes)).collect();
    let numbered: Vec<_> = lines.iter().map(|(_, line)| by_number(line, count)).collect();
    let ambiguous = classes.iter().any(|class| class.parse::<usize>().is_ok());
    let (all_named, all_numbered) = (named.iter().all(Option::is_some), numbered.iter().all(Option::is_some));
    let (mut paths, mut labels) = (Vec::new(), Vec::new());
    for ((number, line), (name, digits)) in lines.iter().zip(named.into_iter().zip(numbered)) {
        let found = match (all_named, all_numbered) {
            (true, _) => name,
            (_, true) => digits,
            _ if ambiguous => {
                return Err(format!(
                    "{}: its labels are neither all class names nor all numbers below {count}, and some class names are numbers; use one kind in the whole list",
                    path.display()
                ));
            }
            _ => name.or(digits),
        };
        let place = format!("{}, line {number}", path.display());
        let (path, label) = found.ok_or_else(|| match line.rsplit_once(char::is_whitespace) {
            Some((_, label)) => format!("{place}: label '{label}' is neither a class name nor a number below {count}"),
            None => format!("{place}: found '{line}', expected 'path label'"),
        })?;
        paths.push(folder.join(path));
        labels.push(label);
    }
    Ok((paths, labels))
}

/// A line that ends in a class name, the longest one that fits.
fn by_name<'a>(line: &'a str, classes: &[String]) -> Option<(&'a str, usize)> {
    let fits = |(label, class): (usize, &String)| {
        let path = line.strip_suffix(class.as_str())?;
        let separated = path.ends_with(char::is_whitespace) && !path.trim().is_empty();
        (!class.is_empty() && separated).then_some((path.trim(), label))
    };
    classes
        .iter()
        .enumerate()
        .filter_map(fits)
        .min_by_key(|(path, _)| path.len())
}

/// A line that ends in a number below `count`.
fn by_number(line: &str, count: usize) -> Option<(&str, usize)> {
    let (path, label) = line.rsplit_once(char::is_whitespace)?;
    let label = label.parse().ok().filter(|label| *label < count)?;
    Some((path.trim(), label))
}

/// Counts of label against prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Confusion {
    /// `counts[label][predicted]`
    pub counts: Vec<Vec<usize>>,
    /// Images whose label is among the k most likely classes.
    pub in_top_k: usize,
}

impl Confusion {
    /// Compares `labels` with each image's row of `ranked` classes, which has at least one class, most likely first.
    /// `classes` is the number of classes.
    pub fn new(labels: &[usize], ranked: &[Vec<usize>], classes: usize) -> Self {
        let first: Vec<usize> = ranked.iter().map(|row| row[0]).collect();
        let counts = Self::of(labels, &first, classes);
        let in_top_k = labels
            .iter()
            .zip(ranked)
            .filter(|(label, row)| row.contains(label))
            .count();
        Self { counts, in_top_k }
    }

    /// How often each label was predicted to be each class: `[label][predicted]`.
    pub fn of(labels: &[usize], predicted: &[usize], classes: usize) -> Vec<Vec<usize>> {
        let mut counts = vec![vec![0; classes]; classes];
        for (label, predicted) in labels.iter().zip(predicted) {
            counts[*label][*predicted] += 1;
        }
        counts
    }

    /// Images.
    pub fn total(&self) -> usize {
        self.counts.iter().flatten().sum()
    }

    /// Images whose most likely class is their label.
    pub fn right(&self) -> usize {
        (0..self.counts.len()).map(|class| self.counts[class][class]).sum()
    }

    /// The matrix as a table, with labels as rows and predictions as columns; for many classes, the most frequent
    /// mistakes instead.
    pub fn table(&self, name: impl Fn(usize) -> String) -> String {
        let side = self.counts.len();
        if side <= MOST_CLASSES {
            let head = ["label \\ predicted".to_string()]
                .into_iter()
                .chain((0..side).map(&name));
            let rows = self.counts.iter().enumerate();
            let rows = rows.map(|(label, row)| [name(label)].into_iter().chain(row.iter().map(usize::to_string)));
            return table(head, rows, 1).to_string();
        }
        let rows = mistakes(&self.counts, MOST_CLASSES)
            .into_iter()
            .map(|(count, label, predicted)| [name(label), name(predicted), count.to_string()]);
        table(["label", "predicted", "images"], rows, 2).to_string()
    }
}

/// The most frequent mistakes in `counts[label][predicted]`, at most `most`: how often, label, predicted class.
pub fn mistakes(counts: &[Vec<usize>], most: usize) -> Vec<(usize, usize, usize)> {
    let of_label = |(label, row): (usize, &Vec<usize>)| -> Vec<(usize, usize, usize)> {
        let cells = row.iter().enumerate();
        cells
            .filter(|(predicted, count)| *predicted != label && **count > 0)
            .map(|(predicted, count)| (*count, label, predicted))
            .collect()
    };
    let mut wrong: Vec<(usize, usize, usize)> = counts.iter().enumerate().flat_map(of_label).collect();
    wrong.sort_by_key(|(count, label, predicted)| (std::cmp::Reverse(*count), *label, *predicted));
    wrong.truncate(most);
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_numbers_or_names() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("list.txt");
        let classes = ["cat".to_string(), "dog".to_string()];
        std::fs::write(&list, "a b.png dog\n\nc.png 0\n").unwrap();
        let (paths, labels) = read_labels(&list, &classes, 2).unwrap();
        assert_eq!((paths[0].clone(), labels), (dir.path().join("a b.png"), vec![1, 0]));
        for (text, part) in [
            ("c.png 2\n", "line 1"),
            ("c.png 99999999999\n", "below 2"),
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
    fn a_list_is_read_in_one_way() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("list.txt");
        let read = |text: &str, classes: &[&str]| {
            std::fs::write(&list, text).unwrap();
            let classes: Vec<String> = classes.iter().map(|class| class.to_string()).collect();
            read_labels(&list, &classes, classes.len()).map(|(_, labels)| labels)
        };
        let numbers = ["1", "2", "3"];
        assert_eq!(read("a.png 0\nb.png 1\nc.png 2\n", &numbers).unwrap(), [0, 1, 2]);
        assert_eq!(read("a.png 1\nb.png 2\nc.png 3\n", &numbers).unwrap(), [0, 1, 2]);
        assert!(read("a.png 0\nb.png 3\n", &numbers).unwrap_err().contains("one kind"));
        let names = ["cat", "big cat", "a,b"];
        assert_eq!(
            read("big cat/0.png big cat\nx y.png cat\na,b/0.png a,b\n", &names).unwrap(),
            [1, 0, 2]
        );
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
