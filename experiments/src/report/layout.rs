//! How the outcomes of a run lie in its folder and in its table.

use std::path::{Component, Path, PathBuf};

use datasets::language::published::Row as PublishedRow;
use serde_json::Value;

use crate::report::{suite_tables, terminal, text_tables};
use crate::run::files::read_lines;
use crate::run::outcome::Outcome;

/// How the outcomes of a run lie in its folder and in its table.
#[derive(Debug, Clone)]
pub enum Layout {
    /// A training per task and method.
    Tasks,
    /// A training per method, tested on several sets.
    Sets {
        /// Those that count in the average.
        scored: Vec<String>,
        /// Published rows to print beside ours; none beside the sample.
        published: &'static [PublishedRow],
        /// The sets that the published rows have values of.
        published_sets: Vec<&'static str>,
    },
    /// A training per method, judged by its loss.
    Losses,
    /// A training per task and method, of texts, each task with metrics of its own.
    Texts {
        /// Published rows to print beside ours.
        published: &'static [PublishedRow],
        /// The tasks that they have values of.
        published_tasks: &'static [&'static str],
    },
}

impl Layout {
    /// The table as the terminal shows it.
    pub fn table(&self, outcomes: &[Outcome]) -> String {
        match self {
            Self::Tasks => terminal::table(outcomes),
            Self::Sets {
                scored,
                published,
                published_sets,
            } => suite_tables::suite(outcomes, scored, published, published_sets),
            Self::Losses => suite_tables::losses(outcomes),
            Self::Texts {
                published,
                published_tasks,
            } => text_tables::table(outcomes, published, published_tasks),
        }
    }

    /// Where the files of an outcome lie.
    pub fn folder(&self, out: &Path, outcome: &Outcome) -> PathBuf {
        let folder = match self {
            Self::Tasks | Self::Texts { .. } => inside(&inside(out, &outcome.task), &outcome.method),
            Self::Sets { .. } | Self::Losses => inside(out, &outcome.method),
        };
        let of_seed = folder.join(format!("seed-{}", outcome.seed));
        if of_seed.is_dir() { of_seed } else { folder }
    }
}

/// `name` below `folder`, whatever the file says that it is from: what leads out of the folder is left out of it.
pub fn inside(folder: &Path, name: &str) -> PathBuf {
    let parts = Path::new(name).components();
    let plain = parts.filter(|part| matches!(part, Component::Normal(_)));
    folder.join(plain.collect::<PathBuf>())
}

/// The method, with its seed where there are several.
pub fn labelled(outcome: &Outcome, all: &[Outcome]) -> String {
    match all.iter().any(|other| other.seed != outcome.seed) {
        true => format!("{}, seed {}", outcome.method, outcome.seed),
        false => outcome.method.clone(),
    }
}

/// Values of one split of metrics.jsonl; empty if the file is missing or has none.
pub fn curve(metrics: &Path, split: &str, x: &str, y: &str) -> Result<Vec<(f64, f64)>, String> {
    let lines = read_lines::<Value>(metrics)?;
    let of_split = lines.iter().filter(|(_, line)| line["split"] == *split);
    Ok(of_split
        .filter_map(|(_, line)| Some((line[x].as_f64()?, line[y].as_f64()?)))
        .collect())
}
