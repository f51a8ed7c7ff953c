//! A task as a classifier reads it.

use backbones::classify::Problem;
use burn::tensor::Device;
use datasets::glue::Label;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::cli::output::tell;
use crate::text::data::Texts;
use crate::text::model::Classifier;
use crate::text::settings;
use crate::text::task::{Item, Part, TextTask};

/// Seed of the choice of held-out texts: independent of the training's seed, so that all seeds are judged by the same
/// texts.
const HELD_OUT: u64 = 0x7e57;

/// A task, its tokenized texts, and the model.
pub struct Prepared {
    /// The task; its training texts are those that remain after holding some out.
    pub task: TextTask,
    /// Texts that were held out.
    pub held_out: Part,
    /// Texts to train on.
    pub train: Texts,
    /// Texts by which trainings are judged.
    pub judged: Texts,
    /// Both with their features before the head, once these were needed.
    pub featured: Option<[Texts; 2]>,
    /// The model.
    pub classifier: Classifier,
    /// Its device, with autodiff.
    pub device: Device,
}

impl Prepared {
    /// Holds out a part of the training texts of `task` and tokenizes all texts.
    ///
    /// # Errors
    /// A text without a label, or one that cannot be tokenized; nothing left to train on.
    pub fn new(
        mut task: TextTask,
        classifier: Classifier,
        settings: &settings::Texts,
        device: Device,
    ) -> Result<Self, String> {
        task.train.truncate(settings.train_limit.unwrap_or(usize::MAX));
        if let Some(at) = task.train.iter().position(|item| item.label.is_none()) {
            return Err(format!("training text {} has no label", at + 1));
        }
        let mut held_out = Part {
            name: "held out".into(),
            items: Vec::new(),
        };
        if settings.validation > 0.0 && !task.train.is_empty() {
            // Files are often sorted by label.
            let mut order: Vec<usize> = (0..task.train.len()).collect();
            order.shuffle(&mut StdRng::seed_from_u64(HELD_OUT));
            let count = (settings.validation * task.train.len() as f64).ceil() as usize;
            let mut chosen = order.split_off(order.len() - count);
            order.sort_unstable();
            chosen.sort_unstable();
            held_out.items = chosen.iter().map(|at| task.train[*at].clone()).collect();
            task.train = order.into_iter().map(|at| task.train[at].clone()).collect();
            if task.train.is_empty() {
                return Err("validation leaves no text to train on; lower it".into());
            }
        }
        let judged = match (held_out.items.is_empty(), task.valid.first()) {
            (true, Some(part)) => &part.items[..],
            _ => &held_out.items[..],
        };
        let problem = task.labels.problem();
        let unknown = unknown(problem);
        let (texts, full) = classifier.tokenize(&task.train, unknown)?;
        let tokens: usize = texts.iter().map(|text| text.encoded.ids.len()).sum();
        let cut = match full {
            0 => String::new(),
            full => format!("; {full} fill max_length {}", classifier.max_length),
        };
        if !texts.is_empty() {
            tell(format_args!(
                "{}: {} texts to train on, {tokens} tokens{cut}; {} to judge by",
                task.name,
                texts.len(),
                judged.len()
            ));
        }
        let (judged, _) = classifier.tokenize(judged, unknown)?;
        // Training uses the tokens; the texts themselves are no longer needed.
        task.train = Vec::new();
        Ok(Self {
            train: Texts::new(texts, problem, settings.group_by_length),
            judged: Texts::new(judged, problem, false),
            featured: None,
            held_out,
            task,
            classifier,
            device,
        })
    }

    /// Tokenizes `items`, in order.
    ///
    /// # Errors
    /// A text that cannot be tokenized.
    pub fn texts(&self, items: &[Item]) -> Result<Texts, String> {
        let problem = self.task.labels.problem();
        let (texts, _) = self.classifier.tokenize(items, unknown(problem))?;
        Ok(Texts::new(texts, problem, false))
    }
}

/// Placeholder for an unknown answer.
fn unknown(problem: Problem) -> Label {
    match problem {
        Problem::SingleLabel => Label::Class(0),
        Problem::Regression | Problem::MultiLabel => Label::Score(0.0),
    }
}
