//! Batches of token sequences (one example each, or several packed ones), padded on the right to the longest in the
//! batch; on GPUs, to one of a few lengths.

use std::sync::Arc;

use backbones::lm::{Layout, Side};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Int, Tensor, TensorData};
use kernels::IGNORE_INDEX;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::language::buckets::{bucket, wants_buckets};
use crate::train::stream::{Plan, Source, shuffled};

/// The tokens of one example, or of several one after the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sequence {
    /// Token ids.
    pub ids: Vec<u32>,
    /// For each token, whether it is a target token.
    pub learned: Vec<bool>,
    /// Where the second and later examples start; examples do not see each other.
    pub starts: Vec<usize>,
}

impl Sequence {
    /// Number of target tokens. The first token cannot be one, because nothing before it could predict it.
    pub fn count(&self) -> usize {
        self.learned.iter().skip(1).filter(|learned| **learned).count()
    }

    /// Number of tokens of each example before its first target token: its prompt.
    pub fn prompts(&self) -> Vec<usize> {
        let starts = std::iter::once(0).chain(self.starts.iter().copied());
        let of_example = |(start, length): (usize, usize)| {
            let learned = &self.learned[start..start + length];
            learned.iter().position(|learned| *learned).unwrap_or(length)
        };
        starts.zip(self.documents()).map(of_example).collect()
    }

    /// Tokens of each example.
    pub fn documents(&self) -> Vec<usize> {
        let starts = std::iter::once(0).chain(self.starts.iter().copied());
        let ends = self.starts.iter().copied().chain([self.ids.len()]);
        starts.zip(ends).map(|(start, end)| end - start).collect()
    }
}

/// One batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[batch, tokens]`
    pub ids: Tensor<2, Int>,
    /// Positions, in the flattened `[batch · tokens]`, whose next token is a target token: `[n]`; padding points at the first.
    pub positions: Tensor<1, Int>,
    /// Those next tokens, `[n]`; [`IGNORE_INDEX`] for padding, which comes last.
    pub targets: Tensor<1, Int>,
    /// Target tokens, padding not counted.
    pub count: usize,
    /// Where its tokens are. Padding comes last, where causal attention hides it from every real token: a row with one
    /// example gives the same result without padding.
    pub layout: Layout,
}

/// A batch in host memory.
pub struct Values {
    ids: Vec<i64>,
    positions: Vec<i64>,
    targets: Vec<i64>,
    count: usize,
    layout: Layout,
}

impl Values {
    /// The batch of `sequences`.
    pub fn new<'a>(sequences: impl ExactSizeIterator<Item = &'a Sequence> + Clone) -> Self {
        let (rows, width) = (
            sequences.len(),
            sequences.clone().map(|s| s.ids.len()).max().unwrap_or(0),
        );
        let layout = match sequences.clone().all(|sequence| sequence.starts.is_empty()) {
            true => {
                let lengths: Vec<usize> = sequences.clone().map(|sequence| sequence.ids.len()).collect();
                Layout::padded(&lengths, width, Side::Right)
            }
            false => {
                let documents: Vec<Vec<usize>> = sequences.clone().map(Sequence::documents).collect();
                Layout::packed(&documents, width)
            }
        };
        let prompts: Vec<Vec<usize>> = sequences.clone().map(Sequence::prompts).collect();
        let layout = layout.with_prompts(&prompts);
        let mut ids = vec![0i64; rows * width];
        let (mut positions, mut targets) = (Vec::new(), Vec::new());
        for (row, sequence) in sequences.enumerate() {
            for (column, id) in sequence.ids.iter().enumerate() {
                ids[row * width + column] = i64::from(*id);
                if column > 0 && sequence.learned[column] {
                    positions.push((row * width + column - 1) as i64);
                    targets.push(i64::from(*id));
                }
            }
        }
        Self {
            ids,
            positions,
            count: targets.len(),
            targets,
            layout,
        }
    }

    /// The batch on `device`, in sizes that suit it.
    pub fn on_device(self, device: &Device) -> Batch {
        let values = match wants_buckets(device) {
            true => self.in_buckets(),
            false => self,
        };
        let line = |values: Vec<i64>| {
            let n = values.len();
            Tensor::from_data(TensorData::new(values, [n]), device)
        };
        let shape = [values.layout.rows(), values.layout.tokens()];
        Batch {
            ids: Tensor::from_data(TensorData::new(values.ids, shape), device),
            positions: line(values.positions),
            targets: line(values.targets),
            count: values.count,
            layout: values.layout,
        }
    }

    /// The same batch with padding to one of a few lengths, and to one of a few numbers of target tokens.
    pub fn in_buckets(mut self) -> Self {
        let (from, to) = (self.layout.tokens(), bucket(self.layout.tokens()));
        if from == 0 {
            return self;
        }
        let rows = self.ids.chunks_exact(from);
        self.ids = rows
            .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0, to - from)))
            .collect();
        for position in &mut self.positions {
            *position += *position / from as i64 * (to - from) as i64;
        }
        let count = bucket(self.count);
        self.positions.resize(count, 0);
        self.targets.resize(count, IGNORE_INDEX);
        self.layout = self.layout.padded_to(to);
        self
    }
}

impl Batch {
    /// The batch of `sequences`, on `device`.
    pub fn new<'a>(sequences: impl ExactSizeIterator<Item = &'a Sequence> + Clone, device: &Device) -> Self {
        Values::new(sequences).on_device(device)
    }

    /// Target tokens.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Tokens, padding included.
    pub fn tokens(&self) -> usize {
        self.ids.dims().iter().product()
    }
}

/// Sequences to train or to be evaluated on.
#[derive(Debug, Clone)]
pub struct Sequences {
    sequences: Arc<Vec<Sequence>>,
    /// Whether batches contain sequences of similar length.
    group_by_length: bool,
}

impl Sequences {
    /// `sequences` to train on. With `group_by_length`, batches have little padding; without it, batches are random, as
    /// in the paper's code. Since the loss of a step is the mean over its target tokens, grouping changes the
    /// objective.
    pub fn to_train(sequences: Vec<Sequence>, group_by_length: bool) -> Self {
        Self {
            sequences: Arc::new(sequences),
            group_by_length,
        }
    }

    /// `sequences` to evaluate on, sorted by length; may be empty.
    pub fn held_out(mut sequences: Vec<Sequence>) -> Self {
        sequences.sort_by_key(|sequence| sequence.ids.len());
        Self::to_train(sequences, false)
    }
}

/// The batches of an epoch over `count` examples: examples are shuffled and sorted by length within stretches of 50
/// batches, then the batches are shuffled. There is little padding, and yet every epoch has different batches.
pub fn of_like_length(count: usize, plan: &Plan, epoch: usize, length: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
    let mut rng = StdRng::seed_from_u64(plan.seed.wrapping_add(epoch as u64));
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut rng);
    for stretch in order.chunks_mut(50 * plan.batch_size) {
        stretch.sort_by_key(|index| std::cmp::Reverse(length(*index)));
    }
    let mut batches: Vec<Vec<usize>> = order.chunks(plan.batch_size).map(<[usize]>::to_vec).collect();
    batches.shuffle(&mut rng);
    batches
}

impl Source for Sequences {
    type Host = Values;
    type Batch = Batch;

    fn count(&self) -> usize {
        self.sequences.len()
    }

    fn epoch(&self, plan: &Plan, epoch: usize) -> Vec<Vec<usize>> {
        if self.group_by_length {
            return of_like_length(self.count(), plan, epoch, |index| self.sequences[index].ids.len());
        }
        let order = shuffled(self.count(), plan.seed, epoch);
        order.chunks(plan.batch_size).map(<[usize]>::to_vec).collect()
    }

    fn read(&self, items: &[usize], _seed: Option<u64>) -> Result<Values, DatasetError> {
        Ok(Values::new(items.iter().map(|index| &self.sequences[*index])))
    }

    fn on_device(&self, host: Values, device: &Device) -> Batch {
        host.on_device(device)
    }
}

#[cfg(test)]
mod tests {
    use crate::train::stream::Seeding;

    use super::*;

    #[test]
    fn positions_point_at_the_token_before_a_target() {
        let sequences = [
            Sequence {
                ids: vec![5, 6, 7, 8],
                learned: vec![false, false, true, true],
                ..Sequence::default()
            },
            Sequence {
                ids: vec![5, 9],
                learned: vec![true, true],
                ..Sequence::default()
            },
        ];
        let batch = Batch::new(sequences.iter(), &Device::flex());
        assert_eq!(batch.ids.dims(), [2, 4]);
        let values = |tensor: Tensor<1, Int>| tensor.into_data().iter::<i64>().collect::<Vec<_>>();
        assert_eq!(values(batch.positions), [1, 2, 4]);
        assert_eq!(values(batch.targets), [7, 8, 9]);
        assert_eq!(sequences[1].count(), 1);
    }

    #[test]
    fn batches_hold_sequences_of_like_length_where_that_is_asked_for() {
        let sequence = |i: usize| Sequence {
            ids: vec![i as u32 + 1; 2 + i % 7],
            learned: (0..2 + i % 7).map(|at| at > 0).collect(),
            ..Sequence::default()
        };
        let plan = Plan {
            batch_size: 3,
            accumulation: 1,
            epochs: 1,
            stop_after: None,
            eval_steps: None,
            seed: 1,
            seeding: Seeding::Step,
        };
        let padding = |group_by_length: bool| {
            let data = Sequences::to_train((0..200).map(sequence).collect(), group_by_length);
            let batches = data.epoch(&plan, 0);
            assert_eq!(batches.iter().flatten().count(), 200);
            let of_batch = |batch: &Vec<usize>| {
                let lengths: Vec<usize> = batch.iter().map(|index| data.sequences[*index].ids.len()).collect();
                lengths.len() * lengths.iter().max().unwrap() - lengths.iter().sum::<usize>()
            };
            batches.iter().map(of_batch).sum::<usize>()
        };
        assert!(padding(true) < 100, "{}", padding(true));
        assert!(padding(false) > 250, "{}", padding(false));
    }
}
