//! Batches of token sequences (an example each, or several packed): of like length, padded on the right to the longest of each, in an order that depends
//! on the seed and the epoch's number only.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backbones::lm::{Layout, Side};
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// The tokens of one example, or of several one after the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sequence {
    /// Token ids.
    pub ids: Vec<u32>,
    /// For each token, whether the model learns to say it.
    pub learned: Vec<bool>,
    /// Where the second and further examples start; none of them sees another.
    pub starts: Vec<usize>,
}

impl Sequence {
    /// Tokens that are learned. The first token has nothing before it that could predict it.
    pub fn count(&self) -> usize {
        self.learned.iter().skip(1).filter(|learned| **learned).count()
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
    /// Positions, in the flattened `[batch · tokens]`, whose next token is learned: `[n]`.
    pub positions: Tensor<1, Int>,
    /// Those next tokens, `[n]`.
    pub targets: Tensor<1, Int>,
    /// Where its tokens stand. Padding comes last, where causal attention keeps it from every real token: rows of one
    /// example each compute the same without padding.
    pub layout: Layout,
}

impl Batch {
    /// The batch of `sequences`, on `device`.
    pub fn new<'a>(sequences: impl ExactSizeIterator<Item = &'a Sequence> + Clone, device: &Device) -> Self {
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
        let line = |values: Vec<i64>| {
            let n = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [n]), device)
        };
        Self {
            ids: Tensor::from_data(TensorData::new(ids, [rows, width]), device),
            positions: line(positions),
            targets: line(targets),
            layout,
        }
    }
}

/// What one optimizer step reads: some batches whose gradients are summed.
#[derive(Debug, Clone)]
pub struct Step {
    /// The batches.
    pub batches: Vec<Batch>,
    /// Learned tokens of all of them: the loss is the mean over these, as if they were one batch.
    pub learned: usize,
    /// Tokens of all of them, padding included.
    pub tokens: usize,
    /// Random numbers of this step (dropout) start here.
    pub seed: u64,
}

/// How sequences become steps.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Sequences a batch.
    pub batch_size: usize,
    /// Batches a step.
    pub accumulation: usize,
    /// Epochs.
    pub epochs: usize,
    /// Steps between evaluations; an epoch if absent.
    pub eval_steps: Option<usize>,
    /// Seed of the order.
    pub seed: u64,
}

impl Plan {
    /// Steps of an epoch of `count` sequences.
    pub fn steps_per_epoch(&self, count: usize) -> usize {
        count.div_ceil(self.batch_size).div_ceil(self.accumulation)
    }

    /// All steps.
    pub fn steps(&self, count: usize) -> usize {
        self.epochs * self.steps_per_epoch(count)
    }

    /// Steps of a round: what burn-train takes for an epoch, with an evaluation and a checkpoint after it.
    pub fn steps_per_round(&self, count: usize) -> usize {
        self.eval_steps.unwrap_or(self.steps_per_epoch(count)).max(1)
    }

    /// Rounds of the whole training.
    pub fn rounds(&self, count: usize) -> usize {
        self.steps(count).div_ceil(self.steps_per_round(count))
    }
}

/// The training sequences as rounds of steps.
#[derive(Clone)]
pub struct Rounds {
    sequences: Arc<Vec<Sequence>>,
    plan: Plan,
    device: Device,
    round: Arc<AtomicUsize>,
}

impl Rounds {
    /// The steps of `sequences`, from round `first` (from 0) on.
    pub fn new(sequences: Arc<Vec<Sequence>>, plan: Plan, first: usize, device: &Device) -> Self {
        Self {
            sequences,
            plan,
            device: device.clone(),
            round: Arc::new(AtomicUsize::new(first)),
        }
    }

    /// Batches of an epoch: shuffled, sorted by length within stretches of 50 batches, then the batches shuffled, so
    /// that little is padding and yet every epoch mixes differently.
    fn epoch(&self, epoch: usize) -> Vec<Vec<usize>> {
        let mut rng = StdRng::seed_from_u64(self.plan.seed.wrapping_add(epoch as u64));
        let mut order: Vec<usize> = (0..self.sequences.len()).collect();
        order.shuffle(&mut rng);
        for stretch in order.chunks_mut(50 * self.plan.batch_size) {
            stretch.sort_by_key(|index| std::cmp::Reverse(self.sequences[*index].ids.len()));
        }
        let mut batches: Vec<Vec<usize>> = order.chunks(self.plan.batch_size).map(<[usize]>::to_vec).collect();
        batches.shuffle(&mut rng);
        batches
    }
}

impl DataLoader<Step> for Rounds {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Step> + 'a> {
        let count = self.sequences.len();
        let round = self.round.fetch_add(1, Ordering::SeqCst);
        let from = round * self.plan.steps_per_round(count);
        let to = (from + self.plan.steps_per_round(count)).min(self.plan.steps(count));
        Box::new(RoundSteps {
            rounds: self,
            steps: from..to.max(from),
            total: to.saturating_sub(from),
            epoch: None,
        })
    }

    fn num_items(&self) -> usize {
        self.plan.steps_per_round(self.sequences.len())
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Step>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Step>> {
        Arc::new(Self {
            sequences: Arc::new(self.sequences[start..end].to_vec()),
            ..self.clone()
        })
    }
}

struct RoundSteps<'a> {
    rounds: &'a Rounds,
    steps: std::ops::Range<usize>,
    total: usize,
    epoch: Option<(usize, Vec<Vec<usize>>)>,
}

impl Iterator for RoundSteps<'_> {
    type Item = Result<Step, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.steps.next()?;
        let Rounds {
            sequences,
            plan,
            device,
            ..
        } = self.rounds;
        let per_epoch = plan.steps_per_epoch(sequences.len());
        let epoch = step / per_epoch;
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            self.epoch = Some((epoch, self.rounds.epoch(epoch)));
        }
        let batches = self.epoch.as_ref().map_or(&[][..], |(_, batches)| batches);
        let from = (step % per_epoch) * plan.accumulation;
        let chosen = &batches[from..batches.len().min(from + plan.accumulation)];
        // From the step's number alone, so that a resumed run repeats it.
        let seed = plan.seed.wrapping_add((step as u64) << 20);
        device.seed(seed);
        Some(Ok(make_step(sequences, chosen, seed, device)))
    }
}

impl DataLoaderIterator<Step> for RoundSteps<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.total - self.steps.len(), self.total, Some("steps".into()))
    }
}

/// The step that reads `batches` of `sequences`.
pub(crate) fn make_step(sequences: &[Sequence], batches: &[Vec<usize>], seed: u64, device: &Device) -> Step {
    let made: Vec<Batch> = batches
        .iter()
        .map(|batch| Batch::new(batch.iter().map(|index| &sequences[*index]), device))
        .collect();
    let tokens = made
        .iter()
        .map(|batch| batch.ids.dims().iter().product::<usize>())
        .sum();
    let learned = batches.iter().flatten().map(|index| sequences[*index].count()).sum();
    Step {
        batches: made,
        learned,
        tokens,
        seed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(count: usize) -> Arc<Vec<Sequence>> {
        let sequence = |i: usize| Sequence {
            ids: vec![i as u32 + 1; 2 + i % 7],
            learned: (0..2 + i % 7).map(|at| at > 0).collect(),
            ..Sequence::default()
        };
        Arc::new((0..count).map(sequence).collect())
    }

    fn plan(eval_steps: Option<usize>) -> Plan {
        Plan {
            batch_size: 3,
            accumulation: 2,
            epochs: 2,
            eval_steps,
            seed: 1,
        }
    }

    fn first_ids(rounds: &Rounds, count: usize) -> Vec<Vec<i64>> {
        (0..count)
            .flat_map(|_| rounds.iter().map(|step| step.unwrap()).collect::<Vec<_>>())
            .map(|step| {
                let batches = step.batches.iter();
                batches
                    .flat_map(|batch| batch.ids.clone().into_data().iter::<i64>().collect::<Vec<_>>())
                    .collect()
            })
            .collect()
    }

    #[test]
    fn positions_point_at_the_token_before_a_learned_one() {
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
    fn every_sequence_comes_once_an_epoch() {
        let device = Device::flex();
        // 20 sequences: 7 batches, 4 steps an epoch, the last one of a single batch.
        let rounds = Rounds::new(sequences(20), plan(None), 0, &device);
        let mut seen: Vec<i64> = first_ids(&rounds, 1)
            .concat()
            .into_iter()
            .filter(|id| *id > 0)
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (1..=20).collect::<Vec<i64>>());
    }

    #[test]
    fn rounds_cut_the_same_stream_wherever_they_start() {
        let device = Device::flex();
        let whole = first_ids(&Rounds::new(sequences(20), plan(None), 0, &device), 2);
        let parts = first_ids(&Rounds::new(sequences(20), plan(Some(3)), 0, &device), 3);
        let resumed = first_ids(&Rounds::new(sequences(20), plan(Some(3)), 1, &device), 2);
        assert_eq!((whole.len(), plan(Some(3)).rounds(20)), (8, 3));
        assert_eq!(whole, parts);
        assert_eq!(whole[3..], resumed);
    }

    #[test]
    fn batches_hold_sequences_of_like_length() {
        let rounds = Rounds::new(sequences(200), plan(None), 0, &Device::flex());
        let (mut tokens, mut padded) = (0, 0);
        for step in rounds.iter().map(|step| step.unwrap()) {
            padded += step.tokens;
            tokens += step.learned + step.batches.iter().map(|batch| batch.ids.dims()[0]).sum::<usize>();
        }
        assert!(padded < tokens * 11 / 10, "{padded} for {tokens}");
    }
}
