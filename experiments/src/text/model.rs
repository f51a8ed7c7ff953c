//! The model of a run: its weights with a head for the task, and its tokenizer.

use std::path::Path;
use std::time::Instant;

use backbones::classify::{
    ClassifierOptions, Encoded, Labels, PretrainedClassifier, Problem, TextTokenizer, load_classifier,
};
use backbones::lm::LoadOptions;
use burn::tensor::Device;
use datasets::glue::Label;
use rayon::prelude::*;
use serde_json::Value;

use crate::cli::model_folder;
use crate::cli::output::{detail, note, tell};
use crate::language::model::folder;
use crate::language::settings::Model;
use crate::run::files::read_json;
use crate::run::memory::peak_note;
use crate::text::data::Text;
use crate::text::description::Description;
use crate::text::order::Order;
use crate::text::task::Item;

/// A text classifier and its tokenizer.
pub struct Classifier {
    /// The model.
    pub pretrained: PretrainedClassifier,
    /// Text to tokens.
    pub tokenizer: TextTokenizer,
    /// Maximum tokens of a text.
    pub max_length: usize,
    /// The order of the model's labels, if it is another than the task's.
    pub order: Option<Order>,
}

/// Loads the model in `settings` onto `device`, for `labels`. Its own head is kept if it was made for these labels, and then
/// the model's labels have the head's order.
///
/// # Errors
/// Files that are missing, malformed or do not fit together.
pub fn load(
    settings: &Model,
    labels: &Labels,
    dropout: bool,
    max_length: usize,
    device: &Device,
) -> Result<Classifier, String> {
    let folder = folder(settings)?;
    model_folder::note_adapter(&folder, settings.adapter.as_deref());
    let start = Instant::now();
    let own = own_labels(&folder)?;
    let of_task = labels;
    // An adapter has a head of its own, in the order of its own labels.
    let order = match &settings.adapter {
        Some(adapter) => match Description::read(adapter)? {
            Some(description) => Order::of(&description.labels(adapter)?, of_task),
            None => None,
        },
        None => Order::of(&own, of_task),
    };
    let labels = match &order {
        Some(order) => order.arranged(of_task)?,
        None => of_task.clone(),
    };
    let other = (!serves(&own, &labels)).then_some(own);
    let options = ClassifierOptions {
        weights: LoadOptions {
            precision: settings.dtype.into(),
            ..LoadOptions::default()
        },
        labels: Some(labels.clone()),
        fresh_head: other.is_some(),
        dropout,
    };
    let name = settings.model.as_deref().unwrap_or("the small model that ships");
    model_folder::loading(name, &folder).into_iter().for_each(tell);
    let pretrained = load_classifier(&folder.to_string_lossy(), &options, device).map_err(|e| e.to_string())?;
    let model = &pretrained.model;
    let max_length = model.max_tokens().map_or(max_length, |most| most.min(max_length));
    let tokenizer = TextTokenizer::load(&folder, model.vocab_size(), max_length).map_err(|e| e.to_string())?;
    let seconds = start.elapsed().as_secs_f64();
    tell(format_args!("{name}: loaded in {seconds:.1} s{}", peak_note(device)));
    if let (Some(own), true) = (other, pretrained.replaced) {
        note(format_args!(
            "{name}: its output layer is for {}; a new one for {} takes its place",
            described(&own),
            described(&labels)
        ));
    }
    let order = order.filter(|_| labels != *of_task);
    if order.is_some() && pretrained.fresh.is_empty() {
        tell(format_args!(
            "{name}: {} in the order of its output layer",
            described(&labels)
        ));
    }
    if !pretrained.fresh.is_empty() {
        detail(format_args!("starts at random: {}", pretrained.fresh.join(", ")));
    }
    Ok(Classifier {
        pretrained,
        tokenizer,
        max_length,
        order,
    })
}

fn described(labels: &Labels) -> String {
    const SHOWN: usize = 5;
    let names = labels.names();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    match labels.problem() {
        Problem::Regression => "a regression".into(),
        _ => format!(
            "{} labels ({}{more})",
            names.len(),
            names[..names.len().min(SHOWN)].join(", ")
        ),
    }
}

/// True if the head in the model's files, which was made for the `own` labels, serves for `labels`: if the names are the
/// same, or if the files have only numbers for names; the name of a regression's output does not matter.
fn serves(own: &Labels, labels: &Labels) -> bool {
    let same_count = own.names().len() == labels.names().len();
    let numbered = is_numbered(own);
    let same = |(a, b): (&String, &String)| a.to_lowercase() == b.to_lowercase();
    match (own.problem(), labels.problem()) {
        (Problem::Regression, Problem::Regression) => same_count,
        (Problem::Regression, _) | (_, Problem::Regression) => false,
        (kind, wanted) => {
            same_count && (own.names().iter().zip(labels.names()).all(same) || numbered && kind == wanted)
        }
    }
}

/// The labels of the model in `folder`, by its config.json.
///
/// # Errors
/// A file that cannot be read or is malformed.
pub fn own_labels(folder: &Path) -> Result<Labels, String> {
    let path = folder.join("config.json");
    let config: Value = read_json(&path, "fetch the model again")?.unwrap_or_default();
    Labels::from_hf(&config).map_err(|e| format!("{}: {e}", path.display()))
}

/// True if labels have only the numbers for names that transformers gives to those without.
pub fn is_numbered(labels: &Labels) -> bool {
    labels.names().iter().all(|name| name.starts_with("LABEL_"))
}

impl Classifier {
    /// Tokenizes `items`; also returns how many of them reach the maximum length. Items without an answer get
    /// `unknown`.
    ///
    /// # Errors
    /// A text that cannot be tokenized.
    pub fn tokenize(&self, items: &[Item], unknown: Label) -> Result<(Vec<Text>, usize), String> {
        let text = |(index, item): (usize, &Item)| {
            let encoded: Encoded = self
                .tokenizer
                .encode(&item.text, item.pair.as_deref())
                .map_err(|e| format!("text {}: {e}", index + 1))?;
            let label = item.label.unwrap_or(unknown);
            Ok(Text {
                encoded,
                label: self.order.as_ref().map_or(label, |order| order.output(label)),
            })
        };
        let texts = items.par_iter().enumerate().map(text);
        let texts = texts.collect::<Result<Vec<Text>, String>>()?;
        let full = texts.iter().filter(|text| text.encoded.ids.len() >= self.max_length);
        let full = full.count();
        Ok((texts, full))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn classes(names: &[&str]) -> Labels {
        let names = names.iter().map(|name| (*name).into()).collect();
        Labels::new(names, Problem::SingleLabel).unwrap()
    }

    /// Whether the head of a model whose config.json is `config` serves for a task with `labels`, in whatever order.
    fn serves(config: &Value, labels: &Labels) -> bool {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let own = own_labels(dir.path()).unwrap();
        let order = Order::of(&own, labels);
        let arranged = order.map_or_else(|| labels.clone(), |order| order.arranged(labels).unwrap());
        super::serves(&own, &arranged)
    }

    #[test]
    fn a_head_is_kept_where_it_was_made_for_the_task() {
        let regression = Labels::regression();
        // The only output of a regression may have any name.
        for named in ["LABEL_0", "score"] {
            assert!(serves(&json!({ "id2label": {"0": named} }), &regression), "{named}");
        }
        assert!(serves(
            &json!({"id2label": ["c0"], "problem_type": "regression"}),
            &regression
        ));
        let three = json!({"num_labels": 3, "problem_type": "regression"});
        assert!(!serves(&three, &regression));
        assert!(!serves(&json!({"id2label": ["a", "b"]}), &regression));

        let two = classes(&["a", "b"]);
        assert!(serves(&json!({"id2label": ["a", "b"]}), &two));
        assert!(serves(&json!({"num_labels": 2}), &two));
        assert!(serves(&json!({"id2label": ["b", "a"]}), &two));
        assert!(serves(&json!({"id2label": ["B", "A"]}), &two));
        assert!(!serves(&json!({"id2label": ["b", "c"]}), &two));
        assert!(!serves(&json!({"num_labels": 2, "problem_type": "regression"}), &two));
        // Trained for several labels a text, but for these.
        let several = "multi_label_classification";
        assert!(serves(&json!({"id2label": ["a", "b"], "problem_type": several}), &two));
        assert!(!serves(&json!({"num_labels": 2, "problem_type": several}), &two));
        let numbers = classes(&["LABEL_0", "LABEL_1"]);
        assert!(serves(&json!({"num_labels": 2, "problem_type": several}), &numbers));
    }
}
