//! The nine tasks.

use super::metrics::{accuracy, f1, matthews, pearson, spearman};

/// A metric of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Fraction of correct answers.
    Accuracy,
    /// F1 of class 1.
    F1,
    /// Matthews correlation.
    Matthews,
    /// Pearson correlation.
    Pearson,
    /// Spearman rank correlation.
    Spearman,
}

impl Metric {
    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::F1 => "f1",
            Self::Matthews => "matthews",
            Self::Pearson => "pearson",
            Self::Spearman => "spearman",
        }
    }

    /// Its value, at most 1, for predictions and correct answers, given as class indices or scores; `None` if it is not
    /// defined, such as a correlation of identical answers.
    ///
    /// # Panics
    /// Lists of different length.
    pub fn of_numbers(self, predicted: &[f64], right: &[f64]) -> Option<f64> {
        let classes = |numbers: &[f64]| numbers.iter().map(|number| *number as usize).collect::<Vec<_>>();
        match self {
            Self::Accuracy => accuracy(&classes(predicted), &classes(right)),
            Self::F1 => Some(f1(&classes(predicted), &classes(right), 1)),
            Self::Matthews => Some(matthews(&classes(predicted), &classes(right))),
            Self::Pearson => pearson(predicted, right),
            Self::Spearman => spearman(predicted, right),
        }
    }
}

/// The answer for a text: a class index or a score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Label {
    /// Index into [`GlueTask::labels`].
    Class(usize),
    /// Similarity from 0 to 5 (STS-B).
    Score(f32),
}

impl Label {
    /// The class index or the score.
    pub fn number(self) -> f64 {
        match self {
            Self::Class(class) => class as f64,
            Self::Score(score) => f64::from(score),
        }
    }
}

/// A task.
#[derive(Debug, PartialEq, Eq)]
pub struct GlueTask {
    /// Name in GLUE's tables, also of the folder in its download.
    pub name: &'static str,
    /// Name among Hugging Face's configurations.
    pub hub_name: &'static str,
    /// Fields of the text in TSV files, two of them for a pair.
    pub fields: &'static [&'static str],
    /// The same in Hugging Face's parquet files.
    pub hub_fields: &'static [&'static str],
    /// Field of the label in TSV files.
    pub label_field: &'static str,
    /// Classes in Hugging Face's order; none for a regression.
    pub labels: &'static [&'static str],
    /// Whether labels in TSV files are names; otherwise they are numbers.
    pub labels_by_name: bool,
    /// Its metrics; runs are compared by the first one.
    pub metrics: &'static [Metric],
    /// Suffixes of validation and test files, and of the files of predictions: MNLI has two of each.
    pub variants: &'static [(&'static str, &'static str)],
}

const ONE: &[(&str, &str)] = &[("", "")];
const ACCURACY: &[Metric] = &[Metric::Accuracy];
const WITH_F1: &[Metric] = &[Metric::Accuracy, Metric::F1];
const SENTENCES: &[&str] = &["sentence1", "sentence2"];

/// Fields that most tasks share.
const PLAIN: GlueTask = GlueTask {
    name: "",
    hub_name: "",
    fields: SENTENCES,
    hub_fields: SENTENCES,
    label_field: "label",
    labels: &["entailment", "not_entailment"],
    labels_by_name: true,
    metrics: ACCURACY,
    variants: ONE,
};

/// The nine, in GLUE's order.
pub const TASKS: [GlueTask; 9] = [
    GlueTask {
        name: "CoLA",
        hub_name: "cola",
        fields: &["sentence"],
        hub_fields: &["sentence"],
        labels: &["unacceptable", "acceptable"],
        labels_by_name: false,
        metrics: &[Metric::Matthews],
        ..PLAIN
    },
    GlueTask {
        name: "SST-2",
        hub_name: "sst2",
        fields: &["sentence"],
        hub_fields: &["sentence"],
        labels: &["negative", "positive"],
        labels_by_name: false,
        ..PLAIN
    },
    GlueTask {
        name: "MRPC",
        hub_name: "mrpc",
        fields: &["#1 String", "#2 String"],
        label_field: "Quality",
        labels: &["not_equivalent", "equivalent"],
        labels_by_name: false,
        metrics: WITH_F1,
        ..PLAIN
    },
    GlueTask {
        name: "QQP",
        hub_name: "qqp",
        fields: &["question1", "question2"],
        hub_fields: &["question1", "question2"],
        label_field: "is_duplicate",
        labels: &["not_duplicate", "duplicate"],
        labels_by_name: false,
        metrics: WITH_F1,
        ..PLAIN
    },
    GlueTask {
        name: "STS-B",
        hub_name: "stsb",
        label_field: "score",
        labels: &[],
        labels_by_name: false,
        metrics: &[Metric::Pearson, Metric::Spearman],
        ..PLAIN
    },
    GlueTask {
        name: "MNLI",
        hub_name: "mnli",
        hub_fields: &["premise", "hypothesis"],
        label_field: "gold_label",
        labels: &["entailment", "neutral", "contradiction"],
        variants: &[("_matched", "-m"), ("_mismatched", "-mm")],
        ..PLAIN
    },
    GlueTask {
        name: "QNLI",
        hub_name: "qnli",
        fields: &["question", "sentence"],
        hub_fields: &["question", "sentence"],
        ..PLAIN
    },
    GlueTask {
        name: "RTE",
        hub_name: "rte",
        ..PLAIN
    },
    GlueTask {
        name: "WNLI",
        hub_name: "wnli",
        labels: &["not_entailment", "entailment"],
        labels_by_name: false,
        ..PLAIN
    },
];

/// The task with that name in GLUE or at Hugging Face, in any case.
///
/// # Errors
/// An unknown name.
pub fn task(name: &str) -> Result<&'static GlueTask, String> {
    static ALL: [GlueTask; 9] = TASKS;
    let same = |own: &str| own.eq_ignore_ascii_case(name);
    let found = ALL.iter().find(|task| same(task.name) || same(task.hub_name));
    found.ok_or_else(|| {
        let names = TASKS.map(|task| task.name).join(", ");
        format!("'{name}' is no GLUE task; choose one of {names}")
    })
}

impl GlueTask {
    /// Number of outputs of a model for it.
    pub fn outputs(&self) -> usize {
        self.labels.len().max(1)
    }

    /// True if answers are scores.
    pub fn is_regression(&self) -> bool {
        self.labels.is_empty()
    }

    /// Each of its metrics, in percent of its maximum; `None` if it is not defined, such as a correlation of identical
    /// answers.
    ///
    /// # Panics
    /// Lists of different length, or labels of another kind of task.
    pub fn evaluate(&self, predicted: &[Label], gold: &[Label]) -> Vec<(Metric, Option<f64>)> {
        let numbers = |labels: &[Label]| -> Vec<f64> {
            let number = |label: &Label| match (label, self.is_regression()) {
                (Label::Class(_), true) | (Label::Score(_), false) => panic!("{label:?} is no answer to {}", self.name),
                _ => label.number(),
            };
            labels.iter().map(number).collect()
        };
        let (predicted, gold) = (numbers(predicted), numbers(gold));
        let percent = |metric: &Metric| metric.of_numbers(&predicted, &gold).map(|value| 100.0 * value);
        self.metrics.iter().map(|metric| (*metric, percent(metric))).collect()
    }
}
