//! `classify`: a text classifier or a regression model, trained on any table of texts and labels.

use std::path::{Path, PathBuf};

use backbones::classify::{Labels, Problem};
use clap::{Args, Command, ValueHint};
use datasets::glue::{Label, Metric};
use datasets::texts::{self, RawTexts, TextFields, class_names, with_classes, with_scores};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::output::tell;
use crate::cli::settings::absolute;
use crate::language::model::folder as base_folder;
use crate::methods::Wing;
use crate::report::layout::Layout;
use crate::run::files::{create_folder, replace};
use crate::suites::experiment::{Experiment, Given, Opened, Text};
use crate::text::adapter;
use crate::text::description::Description;
use crate::text::lab::TextLab;
use crate::text::settings::{MORE, Settings};
use crate::text::task::{Answer, Item, Part, TextTask, TextTasks};

/// The experiment.
pub struct Classify;

const NAME: &str = "classify";

/// Settings of `classify`.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
pub struct ClassifySettings {
    /// Settings that all programs of text classifiers share.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Settings,
    /// The data.
    #[command(flatten)]
    #[serde(flatten)]
    pub data: Tables,
}

/// Data of `classify`.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Data")]
pub struct Tables {
    /// Texts to train on: CSV or TSV with a header, JSON, JSONL or parquet.
    #[arg(long, value_hint = ValueHint::FilePath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_file: Option<PathBuf>,
    /// Validation texts, by which trainings are judged and reported [default: the training texts that --validation
    /// holds out].
    #[arg(long, value_hint = ValueHint::FilePath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_file: Option<PathBuf>,
    /// Texts to make predictions for, after training or with --adapter, in predictions/NAME.jsonl; scored if they have
    /// labels.
    #[arg(long, value_hint = ValueHint::FilePath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_file: Option<PathBuf>,
    /// Field of the text, or two fields separated by a comma for pairs [default: text, or the field that the adapter
    /// was trained with].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_field: Option<String>,
    /// Field of the label.
    #[arg(long, default_value = "label")]
    pub label_field: String,
    /// Predict numbers: labels are scores, not class names.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = false, action = clap::ArgAction::Set)]
    pub regression: bool,
}

impl ClassifySettings {
    fn check(&mut self) -> Result<(), String> {
        self.common.check()?;
        let data = &mut self.data;
        for path in [&mut data.train_file, &mut data.valid_file, &mut data.test_file]
            .into_iter()
            .flatten()
        {
            *path = absolute(path)?;
        }
        if let Some(field) = &data.text_field {
            TextFields::parse(field, Some(&data.label_field)).map_err(|e| format!("field 'text_field': {e}"))?;
        }
        match (&data.train_file, &self.common.model.adapter) {
            (None, None) => Err(
                "no training file; give --train-file FILE (CSV, TSV, JSON, JSONL or parquet), or --adapter FOLDER and \
                 --test-file FILE to answer new texts"
                    .into(),
            ),
            (Some(_), Some(_)) => Err("--adapter is evaluated, not trained; leave --train-file out".into()),
            (None, Some(_)) if data.test_file.is_none() && data.valid_file.is_none() => {
                Err("--adapter needs --test-file or --valid-file, texts to answer".into())
            }
            _ => Ok(()),
        }
    }
}

impl Experiment for Classify {
    fn text(&self) -> Text {
        Text {
            name: NAME,
            about: "Train a text classifier or a regression model on any table of texts and labels",
            more: MORE,
            examples: "classify --train-file reviews.csv --text-field review --label-field sentiment
                classify --train-file pairs.jsonl --text-field question,answer --label-field score --regression --model org/name
                classify --adapter runs/classify/reviews/wegeft/adapter --test-file new.csv --out runs/new",
            defaults: concat!(
                include_str!("text.toml"),
                "learning_rate = 1e-3\nvalidation = 0.1\nmethod = [\"wegeft\"]\n"
            ),
            presets: &[],
        }
    }

    fn wing(&self) -> Wing {
        Wing::Text
    }

    fn flags(&self, command: Command) -> Command {
        ClassifySettings::augment_args(command)
    }

    fn open(&self, given: &Given) -> Result<Opened, String> {
        let (mut settings, program) = given.settings::<ClassifySettings>(&[], ClassifySettings::check)?;
        let description = match &settings.common.model.adapter {
            Some(folder) => Description::read(folder)?,
            None => None,
        };
        let mut own = None;
        if let (Some(description), Some(folder)) = (&description, &settings.common.model.adapter) {
            // An adapter's files name the model that it was trained on.
            if settings.common.model.model.is_none() {
                settings.common.model.model = description.model.clone();
            }
            own = Some(description.labels(folder)?);
        }
        if let (None, Some(folder)) = (&description, &settings.common.model.adapter) {
            // An adapter that PEFT saved has no label names.
            let model = &settings.common.model;
            let base = model.model.as_ref().map(|_| base_folder(model)).transpose()?;
            own = Some(match settings.data.regression {
                true => Labels::regression(),
                false => adapter::labels(folder, base.as_deref())?,
            });
        }
        let from = description
            .as_ref()
            .and_then(|description| description.text_field.clone());
        let field = settings.data.text_field.clone().or(from).unwrap_or("text".into());
        let first = [
            &settings.data.train_file,
            &settings.data.test_file,
            &settings.data.valid_file,
        ];
        let name = first.into_iter().flatten().next().and_then(|path| path.file_stem());
        let name = name.map_or(NAME.into(), |name| name.to_string_lossy().into_owned());
        let tables = Files {
            tables: settings.data,
            fields: field,
            labels: own,
            max_length: description.map(|description| description.max_length),
        };
        Ok(Opened {
            lab: Box::new(TextLab::new(program, settings.common, vec![name], Box::new(tables))),
            layout: Layout::Texts {
                published: &[],
                published_tasks: &[],
            },
        })
    }
}

/// The task of the user's files.
struct Files {
    tables: Tables,
    fields: String,
    /// The labels of the adapter, if one is evaluated.
    labels: Option<Labels>,
    max_length: Option<usize>,
}

impl Files {
    /// The rows of a file that have text and label; what is left out is told.
    fn labelled(&self, path: &Path) -> Result<RawTexts, String> {
        let fields = TextFields::parse(&self.fields, Some(&self.tables.label_field))?;
        let raw = texts::read_labelled(path, &fields).map_err(|e| e.to_string())?;
        if let Some(left_out) = raw.describe_left_out() {
            tell(left_out);
        }
        Ok(raw)
    }

    /// The texts of a file to answer, with their labels as text; with `labelled`, the label field must exist.
    fn raw(&self, path: &Path, labelled: bool) -> Result<RawTexts, String> {
        let field = Some(self.tables.label_field.as_str());
        let fields = TextFields::parse(&self.fields, field.filter(|_| labelled))?;
        texts::read(path, &fields).map_err(|e| e.to_string())
    }

    /// The labels to predict: those of the adapter, or those in the training file.
    fn labels(&self, train: Option<&RawTexts>) -> Result<Labels, String> {
        if let Some(labels) = &self.labels {
            return Ok(labels.clone());
        }
        let Some(train) = train else {
            return Err(
                "the adapter's folder does not say what its outputs are; train it again with this program".into(),
            );
        };
        match self.tables.regression {
            true => Ok(Labels::regression()),
            false => {
                let names = class_names(train).map_err(|e| e.to_string())?;
                Ok(Labels::new(names, Problem::SingleLabel)?)
            }
        }
    }
}

/// `raw` with its labels converted according to `labels`.
fn items(raw: &RawTexts, labels: &Labels) -> Result<Vec<Item>, String> {
    fn read<L>(items: Vec<texts::TextItem<L>>, label: impl Fn(L) -> Label) -> Vec<Item> {
        let item = |item: texts::TextItem<L>| Item {
            text: item.text,
            pair: item.pair,
            label: item.label.map(&label),
        };
        items.into_iter().map(item).collect()
    }
    match labels.problem() {
        Problem::Regression => with_scores(raw).map(|items| read(items, Label::Score)),
        Problem::SingleLabel | Problem::MultiLabel => {
            with_classes(raw, labels.names()).map(|items| read(items, Label::Class))
        }
    }
    .map_err(|e| e.to_string())
}

impl TextTasks for Files {
    fn load(&self, name: &str) -> Result<TextTask, String> {
        let Tables {
            train_file,
            valid_file,
            test_file,
            ..
        } = &self.tables;
        let train = train_file.as_ref().map(|path| self.labelled(path)).transpose()?;
        let labels = self.labels(train.as_ref())?;
        let mut valid = Vec::new();
        if let Some(path) = valid_file {
            valid.push(Part {
                name: stem(path),
                items: items(&self.labelled(path)?, &labels)?,
            });
        }
        let mut test = Vec::new();
        if let Some(path) = test_file {
            // New texts need no labels: their file may lack the field.
            let raw = self.raw(path, true).or_else(|_| self.raw(path, false))?;
            test.push(Part {
                name: stem(path),
                items: items(&raw, &labels)?,
            });
        }
        let metrics = match (labels.problem(), labels.names().len()) {
            (Problem::Regression, _) => vec![Metric::Pearson, Metric::Spearman],
            (_, 2) => vec![Metric::Accuracy, Metric::F1, Metric::Matthews],
            _ => vec![Metric::Accuracy, Metric::Matthews],
        };
        Ok(TextTask {
            name: name.into(),
            metrics,
            train: train
                .as_ref()
                .map(|raw| items(raw, &labels))
                .transpose()?
                .unwrap_or_default(),
            labels,
            valid,
            test,
            max_length: self.max_length,
        })
    }

    fn files(&self) -> Vec<PathBuf> {
        let Tables {
            train_file,
            valid_file,
            test_file,
            ..
        } = &self.tables;
        [train_file, valid_file, test_file]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    fn place(&self) -> Option<String> {
        self.files().first().map(|path| path.display().to_string())
    }

    fn fields(&self) -> Option<String> {
        Some(self.fields.clone())
    }

    /// Writes one JSON line per text: its number, the label or score, and the probability of each class.
    fn write(&self, task: &TextTask, part: &Part, answers: &[Answer], folder: &Path) -> Result<(), String> {
        let names = task.labels.names();
        let line = |(index, (item, answer)): (usize, (&Item, &Answer))| {
            let mut line = json!({ "index": index, "text": item.text });
            if let Some(pair) = &item.pair {
                line["pair"] = json!(pair);
            }
            match answer.label {
                Label::Score(score) => line["score"] = json!(score),
                Label::Class(class) => {
                    line["label"] = json!(names[class]);
                    let probabilities = names.iter().zip(&answer.probabilities);
                    line["probabilities"] = probabilities.map(|(name, p)| (name.clone(), json!(p))).collect();
                }
            }
            format!("{line}\n")
        };
        let lines: String = part.items.iter().zip(answers).enumerate().map(line).collect();
        create_folder(folder)?;
        replace(&folder.join(format!("{}.jsonl", part.name)), lines.as_bytes())
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
