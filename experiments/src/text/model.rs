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

use crate::cli::output::{detail, note, tell};
use crate::language::model::folder;
use crate::language::settings::Model;
use crate::run::files::read_json;
use crate::run::memory::peak_note;
use crate::text::data::Text;
use crate::text::task::Item;

/// A text classifier and its tokenizer.
pub struct Classifier {
    /// The model.
    pub pretrained: PretrainedClassifier,
    /// Text to tokens.
    pub tokenizer: TextTokenizer,
    /// Maximum tokens of a text.
    pub max_length: usize,
}

/// Loads the model in `settings` onto `device`, for `labels`. Its own head is kept if it was made for these labels.
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
    let start = Instant::now();
    let own = other_labels(&folder, labels)?;
    let options = ClassifierOptions {
        weights: LoadOptions {
            precision: settings.dtype.into(),
            ..LoadOptions::default()
        },
        labels: Some(labels.clone()),
        fresh_head: own.is_some(),
        dropout,
    };
    let pretrained = load_classifier(&folder.to_string_lossy(), &options, device).map_err(|e| e.to_string())?;
    let model = &pretrained.model;
    let max_length = model.max_tokens().map_or(max_length, |most| most.min(max_length));
    let tokenizer = TextTokenizer::load(&folder, model.vocab_size(), max_length).map_err(|e| e.to_string())?;
    let name = settings.model.as_deref().unwrap_or("the small model that ships");
    let seconds = start.elapsed().as_secs_f64();
    tell(format_args!("{name}: loaded in {seconds:.1} s{}", peak_note(device)));
    if let (Some(own), true) = (own, pretrained.replaced) {
        note(format_args!(
            "{name}: its output layer is for {}; a new one for {} takes its place",
            described(&own),
            described(labels)
        ));
    }
    if !pretrained.fresh.is_empty() {
        detail(format_args!("starts at random: {}", pretrained.fresh.join(", ")));
    }
    Ok(Classifier {
        pretrained,
        tokenizer,
        max_length,
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

/// The labels that the head in the model's files was made for, if they are not `labels`: the files have other label names,
/// and not only numbers.
fn other_labels(folder: &Path, labels: &Labels) -> Result<Option<Labels>, String> {
    let path = folder.join("config.json");
    let config: Value = read_json(&path, "fetch the model again")?.unwrap_or_default();
    let own = Labels::from_hf(&config).map_err(|e| format!("{}: {e}", path.display()))?;
    let numbered = own.names().iter().all(|name| name.starts_with("LABEL_"));
    let same_names = own.names() == labels.names() || numbered && own.names().len() == labels.names().len();
    let same = same_names && own.problem() == labels.problem();
    Ok((!same).then_some(own))
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
            Ok(Text {
                encoded,
                label: item.label.unwrap_or(unknown),
            })
        };
        let texts = items.par_iter().enumerate().map(text);
        let texts = texts.collect::<Result<Vec<Text>, String>>()?;
        let full = texts.iter().filter(|text| text.encoded.ids.len() >= self.max_length);
        let full = full.count();
        Ok((texts, full))
    }
}
