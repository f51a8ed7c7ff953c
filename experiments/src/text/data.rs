//! Batches of texts with their labels, padded on the right to the longest text in the batch.

use std::sync::Arc;

use backbones::classify::{Encoded, Problem, SequenceClassifier, Targets, TextBatch};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Int, Tensor, TensorData};
use datasets::glue::Label;

use crate::language::buckets::size_on;
use crate::language::data::of_like_length;
use crate::train::stream::{Plan, Source, shuffled};

/// The input of a model for a batch.
#[derive(Debug, Clone)]
pub enum Input {
    /// Tokens.
    Tokens(Box<TextBatch>),
    /// Features before the head, `[batch, d_model]`.
    Features(Box<Tensor<2>>),
}

impl Input {
    /// Logits `[batch, labels]`.
    pub fn logits(self, model: &SequenceClassifier) -> Tensor<2> {
        match self {
            Self::Tokens(batch) => model.forward(batch.ids, &batch.layout, Some(batch.types)),
            Self::Features(features) => model.head().logits(*features),
        }
    }
}

/// One batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The texts.
    pub input: Input,
    /// Their labels.
    pub targets: Targets,
    /// Number of texts.
    pub count: usize,
    /// Tokens, padding included.
    pub tokens: usize,
}

/// The features of all texts, one row each.
#[derive(Debug)]
pub struct Features {
    /// The elements, row by row.
    pub values: Vec<f32>,
    /// Width of a row.
    pub width: usize,
}

/// A tokenized text and its label, 0 if unknown.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    /// Tokens.
    pub encoded: Encoded,
    /// The answer.
    pub label: Label,
}

/// Texts to train or evaluate on.
#[derive(Debug, Clone)]
pub struct Texts {
    texts: Arc<Vec<Text>>,
    features: Option<Arc<Features>>,
    problem: Problem,
    /// Whether batches contain texts of similar length.
    group_by_length: bool,
}

impl Texts {
    /// `texts` with one answer each, for `problem`.
    pub fn new(texts: Vec<Text>, problem: Problem, group_by_length: bool) -> Self {
        Self {
            texts: Arc::new(texts),
            features: None,
            problem,
            group_by_length,
        }
    }

    /// The texts.
    pub fn texts(&self) -> &[Text] {
        &self.texts
    }

    /// The same texts, with `features` as the model's input.
    pub fn with_features(self, features: Features) -> Self {
        Self {
            features: Some(Arc::new(features)),
            ..self
        }
    }

    /// The texts sorted by length, so that batches have little padding, and the original index of each.
    pub fn sorted(&self) -> (Self, Vec<usize>) {
        let mut order: Vec<usize> = (0..self.texts.len()).collect();
        if self.features.is_some() {
            return (self.clone(), order);
        }
        order.sort_by_key(|index| self.texts[*index].encoded.ids.len());
        let texts = order.iter().map(|index| self.texts[*index].clone()).collect();
        (Self::new(texts, self.problem, false), order)
    }

    /// Tokens of the longest text.
    pub fn longest(&self) -> usize {
        let lengths = self.texts.iter().map(|text| text.encoded.ids.len());
        lengths.max().unwrap_or(0)
    }

    fn targets(&self, items: &[usize], device: &Device) -> Targets {
        let labels = items.iter().map(|index| self.texts[*index].label);
        match self.problem {
            Problem::SingleLabel => {
                let classes: Vec<i64> = labels.map(|label| label.number() as i64).collect();
                Targets::Classes(Tensor::<1, Int>::from_data(classes.as_slice(), device))
            }
            Problem::Regression | Problem::MultiLabel => {
                let values: Vec<f32> = labels.map(|label| label.number() as f32).collect();
                Targets::Values(Tensor::from_data(TensorData::new(values, [items.len(), 1]), device))
            }
        }
    }
}

impl Source for Texts {
    type Host = Vec<usize>;
    type Batch = Batch;

    fn count(&self) -> usize {
        self.texts.len()
    }

    fn epoch(&self, plan: &Plan, epoch: usize) -> Vec<Vec<usize>> {
        if self.group_by_length && self.features.is_none() {
            return of_like_length(self.count(), plan, epoch, |index| self.texts[index].encoded.ids.len());
        }
        let order = shuffled(self.count(), plan.seed, epoch);
        order.chunks(plan.batch_size).map(<[usize]>::to_vec).collect()
    }

    /// Returns the indices: all tokens are in memory already.
    fn read(&self, items: &[usize], _seed: Option<u64>) -> Result<Vec<usize>, DatasetError> {
        Ok(items.to_vec())
    }

    fn on_device(&self, items: Vec<usize>, device: &Device) -> Batch {
        let targets = self.targets(&items, device);
        let count = items.len();
        if let Some(features) = &self.features {
            let width = features.width;
            let rows = items
                .iter()
                .flat_map(|index| &features.values[index * width..(index + 1) * width]);
            let rows = TensorData::new(rows.copied().collect::<Vec<f32>>(), [count, width]);
            return Batch {
                input: Input::Features(Box::new(Tensor::from_data(rows, device))),
                targets,
                count,
                tokens: items.iter().map(|index| self.texts[*index].encoded.ids.len()).sum(),
            };
        }
        let texts: Vec<&Encoded> = items.iter().map(|index| &self.texts[*index].encoded).collect();
        let longest = texts.iter().map(|text| text.ids.len()).max().unwrap_or(0);
        let batch = TextBatch::padded(&texts, size_on(device, longest), device);
        Batch {
            tokens: batch.ids.dims().iter().product(),
            input: Input::Tokens(Box::new(batch)),
            targets,
            count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: usize, class: usize) -> Text {
        Text {
            encoded: Encoded {
                ids: vec![length as u32; length],
                types: vec![0; length],
                blanks: Vec::new(),
            },
            label: Label::Class(class),
        }
    }

    #[test]
    fn sorted_texts_know_where_they_were_and_features_take_the_place_of_tokens() {
        let texts = Texts::new(vec![text(5, 0), text(2, 1), text(3, 0)], Problem::SingleLabel, true);
        let (sorted, order) = texts.sorted();
        assert_eq!((order, sorted.longest()), (vec![1, 2, 0], 5));
        let device = Device::flex();
        let batch = sorted.on_device(vec![0, 1], &device);
        assert_eq!((batch.count, batch.tokens), (2, 6));
        let features = Features {
            values: vec![0.0, 0.5, 1.0, 1.5, 2.0, 2.5],
            width: 2,
        };
        let batch = texts.with_features(features).on_device(vec![2, 0], &device);
        let Input::Features(rows) = batch.input else {
            panic!("tokens");
        };
        assert_eq!(rows.into_data().try_to_vec::<f32>().unwrap(), [2.0, 2.5, 0.0, 0.5]);
        let Targets::Classes(classes) = batch.targets else {
            panic!("scores");
        };
        assert_eq!(classes.into_data().iter::<i64>().collect::<Vec<_>>(), [0, 0]);
    }
}
