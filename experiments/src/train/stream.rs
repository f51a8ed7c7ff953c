//! Training data as rounds of optimizer steps, which a thread prepares ahead of the model, even across rounds. At most
//! four steps are in memory: the one that the model is using, two that wait, and the one being prepared.
//!
//! Order and random numbers depend only on the seed and the index of the step, so a run that resumes at a later round
//! behaves like an uninterrupted one.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::run::jobs::share_out;

/// Steps that may wait for the model.
const WAITING: usize = 2;

/// A source of examples for batches.
pub trait Source: Clone + Send + Sync + 'static {
    /// A batch in host memory, as the thread prepares it.
    type Host: Send + 'static;
    /// A batch on a device.
    type Batch: Send + 'static;

    /// Number of examples.
    fn count(&self) -> usize;

    /// The batches of a training epoch, as indices of examples; by default in a new order each epoch.
    fn epoch(&self, plan: &Plan, epoch: usize) -> Vec<Vec<usize>> {
        let order = shuffled(self.count(), plan.seed, epoch);
        order.chunks(plan.batch_size).map(<[usize]>::to_vec).collect()
    }

    /// Reads some examples as one batch; `seed` is that of the epoch in training, `None` in evaluation.
    ///
    /// # Errors
    /// An example that cannot be read.
    fn read(&self, items: &[usize], seed: Option<u64>) -> Result<Self::Host, DatasetError>;

    /// A batch as that many shares of like size, for devices that take one each; fewer if it has fewer examples. Together
    /// they are the batch.
    ///
    /// # Errors
    /// An example that cannot be read.
    fn shares(&self, items: &[usize], seed: Option<u64>, count: usize) -> Result<Vec<Self::Host>, DatasetError> {
        share_out(items.len(), count)
            .map(|places| self.read(&items[places], seed))
            .collect()
    }

    /// The batch on `device`.
    fn on_device(&self, host: Self::Host, device: &Device) -> Self::Batch;
}

/// The indices below `count` in the order of an epoch.
pub fn shuffled(count: usize, seed: u64, epoch: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut StdRng::seed_from_u64(seed.wrapping_add(epoch as u64)));
    order
}

/// When the random numbers of the device (dropout, drop-path) are seeded again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seeding {
    /// In every epoch and every round.
    Epoch,
    /// In every step.
    Step,
}

/// How examples become steps.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Examples per batch.
    pub batch_size: usize,
    /// Batches per step.
    pub accumulation: usize,
    /// Epochs of the schedule.
    pub epochs: usize,
    /// Epochs after which the training stops; all of them if absent.
    pub stop_after: Option<usize>,
    /// Steps between evaluations; an epoch if absent.
    pub eval_steps: Option<usize>,
    /// Seed of the order.
    pub seed: u64,
    /// Seeds of the device.
    pub seeding: Seeding,
}

impl Plan {
    /// Steps of an epoch of `count` examples.
    pub fn steps_per_epoch(&self, count: usize) -> usize {
        count.div_ceil(self.batch_size).div_ceil(self.accumulation)
    }

    /// Steps of the schedule.
    pub fn scheduled_steps(&self, count: usize) -> usize {
        self.epochs * self.steps_per_epoch(count)
    }

    /// Steps that are taken.
    pub fn steps(&self, count: usize) -> usize {
        self.stop_after.unwrap_or(self.epochs) * self.steps_per_epoch(count)
    }

    /// Steps of a round: burn-train's epoch, followed by an evaluation and a checkpoint.
    pub fn steps_per_round(&self, count: usize) -> usize {
        self.eval_steps.unwrap_or(self.steps_per_epoch(count)).max(1)
    }

    /// Rounds of the whole training.
    pub fn rounds(&self, count: usize) -> usize {
        self.steps(count).div_ceil(self.steps_per_round(count))
    }
}

/// The data of one optimizer step: batches whose gradients are summed.
#[derive(Debug, Clone)]
pub struct Step<B> {
    /// The batches, each of them in shares: the first on the first device, the second on the second.
    pub batches: Vec<Vec<B>>,
    /// Random numbers of this step start here.
    pub seed: u64,
}

/// What the thread gives for a step.
type Made<S> = Result<Vec<Vec<<S as Source>::Host>>, DatasetError>;

/// The steps of a training.
pub struct Rounds<S: Source> {
    source: S,
    plan: Plan,
    /// Each takes a share of every batch.
    devices: Vec<Device>,
    /// Part of each epoch's order that this loader gives.
    places: Range<usize>,
    state: Mutex<State<S>>,
}

struct State<S: Source> {
    /// The next round, counted from 0.
    round: usize,
    /// Steps that are being prepared, starting with the first one of that round.
    ahead: Option<Receiver<Made<S>>>,
}

impl<S: Source> Rounds<S> {
    /// The steps of `source`, from round `first` (from 0) on, for `devices`.
    pub fn new(source: S, plan: Plan, first: usize, devices: &[Device]) -> Self {
        Self {
            places: 0..source.count(),
            source,
            plan,
            devices: devices.to_vec(),
            state: Mutex::new(State {
                round: first,
                ahead: None,
            }),
        }
    }

    fn with(&self, devices: &[Device], places: Range<usize>) -> Arc<dyn DataLoader<Step<S::Batch>>> {
        let round = self.state.lock().unwrap_or_else(PoisonError::into_inner).round;
        Arc::new(Self {
            places,
            ..Self::new(self.source.clone(), self.plan, round, devices)
        })
    }

    fn count(&self) -> usize {
        self.places.len()
    }

    /// Starts the thread that prepares the steps, beginning with step `from`.
    fn start(&self, from: usize) -> Receiver<Made<S>> {
        let (sender, steps) = sync_channel(WAITING);
        let (source, plan, places) = (self.source.clone(), self.plan, self.places.clone());
        let (count, shares) = (places.len(), self.devices.len());
        std::thread::spawn(move || {
            let per_epoch = plan.steps_per_epoch(count);
            let mut batches: (Option<usize>, Vec<Vec<usize>>) = (None, Vec::new());
            for step in from..plan.steps(count) {
                let epoch = step / per_epoch;
                if batches.0 != Some(epoch) {
                    batches = (Some(epoch), batches_of(&source, &plan, &places, epoch));
                }
                let first = (step % per_epoch) * plan.accumulation;
                let chosen = &batches.1[first..batches.1.len().min(first + plan.accumulation)];
                let seed = Some(plan.seed.wrapping_add(epoch as u64));
                let made: Made<S> = chosen.iter().map(|items| source.shares(items, seed, shares)).collect();
                let failed = made.is_err();
                // The receiver is gone if the run was interrupted.
                if sender.send(made).is_err() || failed {
                    break;
                }
            }
        });
        steps
    }
}

/// The batches of an epoch at `places` in its order.
fn batches_of<S: Source>(source: &S, plan: &Plan, places: &Range<usize>, epoch: usize) -> Vec<Vec<usize>> {
    let batches = source.epoch(plan, epoch);
    if *places == (0..source.count()) {
        return batches;
    }
    let order = batches.concat();
    order[places.clone()]
        .chunks(plan.batch_size)
        .map(<[usize]>::to_vec)
        .collect()
}

impl<S: Source> DataLoader<Step<S::Batch>> for Rounds<S> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Step<S::Batch>> + 'a> {
        let count = self.count();
        let per_round = self.plan.steps_per_round(count);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let from = state.round * per_round;
        let to = (from + per_round).min(self.plan.steps(count)).max(from);
        state.round += 1;
        let ahead = state.ahead.take().unwrap_or_else(|| self.start(from));
        Box::new(RoundSteps {
            rounds: self,
            steps: from..to,
            total: to - from,
            ahead: Some(ahead),
            first: true,
        })
    }

    fn num_items(&self) -> usize {
        self.plan.steps_per_round(self.count())
    }

    /// burn-train names the device of the model, which is the first one; the others stay.
    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Step<S::Batch>>> {
        let mut devices = self.devices.clone();
        devices[0] = device.clone();
        self.with(&devices, self.places.clone())
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Step<S::Batch>>> {
        let places = self.places.start + start..self.places.start + end;
        self.with(&self.devices, places)
    }
}

/// The thread that prepares steps ended before the last step.
#[derive(Debug, thiserror::Error)]
#[error("reading the data stopped before step {0}")]
struct Stopped(usize);

struct RoundSteps<'a, S: Source> {
    rounds: &'a Rounds<S>,
    steps: Range<usize>,
    total: usize,
    ahead: Option<Receiver<Made<S>>>,
    first: bool,
}

impl<S: Source> Iterator for RoundSteps<'_, S> {
    type Item = Result<Step<S::Batch>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(step) = self.steps.next() else {
            // The thread continues with the next round while the model is evaluated.
            let mut state = self.rounds.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.ahead = self.ahead.take().or(state.ahead.take());
            return None;
        };
        let Rounds {
            source, plan, devices, ..
        } = self.rounds;
        let received = self.ahead.as_ref().and_then(|ahead| ahead.recv().ok());
        let made = received.unwrap_or_else(|| Err(DatasetError::new(Stopped(step))));
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                self.ahead = None;
                return Some(Err(error));
            }
        };
        let per_epoch = plan.steps_per_epoch(self.rounds.count());
        let seed = match plan.seeding {
            Seeding::Step => plan.seed.wrapping_add((step as u64) << 20),
            Seeding::Epoch => {
                let within = (step % per_epoch) as u64;
                plan.seed.wrapping_add((step / per_epoch) as u64) ^ (within << 20)
            }
        };
        if plan.seeding == Seeding::Step || std::mem::take(&mut self.first) || step.is_multiple_of(per_epoch) {
            for (number, device) in devices.iter().enumerate() {
                // The same device twice has one start.
                if !devices[..number].contains(device) {
                    device.seed(seed ^ ((number as u64) << 44));
                }
            }
        }
        // Here and not in the thread that read them: a GPU has a queue, and memory, for every thread that speaks to it.
        let on_devices = |shares: Vec<S::Host>| {
            let shares = shares.into_iter().zip(devices);
            shares.map(|(host, device)| source.on_device(host, device)).collect()
        };
        let batches = made.into_iter().map(on_devices).collect();
        Some(Ok(Step { batches, seed }))
    }
}

impl<S: Source> DataLoaderIterator<Step<S::Batch>> for RoundSteps<'_, S> {
    fn progress(&self) -> Progress {
        Progress::new(self.total - self.steps.len(), self.total, Some("steps".into()))
    }
}

/// Examples in order, one batch per step, for evaluation.
pub struct Ordered<S: Source> {
    source: S,
    batch_size: usize,
    device: Device,
    places: Range<usize>,
}

impl<S: Source> Ordered<S> {
    /// All of `source`.
    pub fn new(source: S, batch_size: usize, device: &Device) -> Self {
        Self {
            places: 0..source.count(),
            source,
            batch_size,
            device: device.clone(),
        }
    }

    /// The batches in order.
    pub fn batches(&self) -> impl Iterator<Item = Result<S::Batch, DatasetError>> + '_ {
        OrderedBatches::new(self)
    }

    fn with(&self, device: &Device, places: Range<usize>) -> Arc<dyn DataLoader<Step<S::Batch>>> {
        Arc::new(Self {
            source: self.source.clone(),
            batch_size: self.batch_size,
            device: device.clone(),
            places,
        })
    }
}

impl<S: Source> DataLoader<Step<S::Batch>> for Ordered<S> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Step<S::Batch>> + 'a> {
        Box::new(OrderedSteps(OrderedBatches::new(self)))
    }

    fn num_items(&self) -> usize {
        self.places.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Step<S::Batch>>> {
        self.with(device, self.places.clone())
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Step<S::Batch>>> {
        self.with(&self.device, self.places.start + start..self.places.start + end)
    }
}

struct OrderedBatches<'a, S: Source> {
    set: &'a Ordered<S>,
    lengths: VecDeque<usize>,
    done: usize,
    made: Receiver<Result<S::Host, DatasetError>>,
}

impl<'a, S: Source> OrderedBatches<'a, S> {
    fn new(set: &'a Ordered<S>) -> Self {
        let (sender, made) = sync_channel(WAITING);
        let batches: Vec<Vec<usize>> = set
            .places
            .clone()
            .collect::<Vec<_>>()
            .chunks(set.batch_size)
            .map(<[usize]>::to_vec)
            .collect();
        let lengths = batches.iter().map(Vec::len).collect();
        let source = set.source.clone();
        std::thread::spawn(move || {
            for items in batches {
                let batch = source.read(&items, None);
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    break;
                }
            }
        });
        Self {
            set,
            lengths,
            done: 0,
            made,
        }
    }
}

impl<S: Source> Iterator for OrderedBatches<'_, S> {
    type Item = Result<S::Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = self.lengths.pop_front()?;
        self.done += length;
        let host = self.made.recv();
        let host = host.unwrap_or_else(|_| Err(DatasetError::new(Stopped(self.done))));
        if host.is_err() {
            self.lengths.clear();
        }
        Some(host.map(|host| self.set.source.on_device(host, &self.set.device)))
    }
}

struct OrderedSteps<'a, S: Source>(OrderedBatches<'a, S>);

impl<S: Source> Iterator for OrderedSteps<'_, S> {
    type Item = Result<Step<S::Batch>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.0.next()?;
        Some(batch.map(|batch| Step {
            batches: vec![vec![batch]],
            seed: 0,
        }))
    }
}

impl<S: Source> DataLoaderIterator<Step<S::Batch>> for OrderedSteps<'_, S> {
    fn progress(&self) -> Progress {
        Progress::new(self.0.done, self.0.set.places.len(), Some("items".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Examples that are their own indices; one of them cannot be read.
    #[derive(Clone)]
    struct Numbers {
        count: usize,
        bad: Option<usize>,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("example {0} is bad")]
    struct Bad(usize);

    impl Source for Numbers {
        type Host = Vec<usize>;
        type Batch = Vec<usize>;

        fn count(&self) -> usize {
            self.count
        }

        fn read(&self, items: &[usize], _seed: Option<u64>) -> Result<Vec<usize>, DatasetError> {
            match items.iter().find(|item| Some(**item) == self.bad) {
                Some(item) => Err(DatasetError::new(Bad(*item))),
                None => Ok(items.to_vec()),
            }
        }

        fn on_device(&self, host: Vec<usize>, _device: &Device) -> Vec<usize> {
            host
        }
    }

    fn plan(accumulation: usize, eval_steps: Option<usize>) -> Plan {
        Plan {
            batch_size: 3,
            accumulation,
            epochs: 2,
            stop_after: None,
            eval_steps,
            seed: 1,
            seeding: Seeding::Step,
        }
    }

    fn numbers(count: usize) -> Numbers {
        Numbers { count, bad: None }
    }

    fn steps(rounds: &dyn DataLoader<Step<Vec<usize>>>, count: usize) -> Vec<Vec<Vec<usize>>> {
        let of_round = |_| {
            rounds
                .iter()
                .map(|step| step.unwrap().batches.concat())
                .collect::<Vec<_>>()
        };
        (0..count).flat_map(of_round).collect()
    }

    #[test]
    fn every_example_comes_once_per_epoch_in_a_new_order() {
        // 20 examples: 7 batches, 4 steps per epoch, the last one of a single batch.
        let rounds = Rounds::new(numbers(20), plan(2, None), 0, &[Device::flex()]);
        let epochs = [steps(&rounds, 1), steps(&rounds, 1)];
        assert_eq!(epochs[0].len(), 4);
        assert_ne!(epochs[0], epochs[1]);
        for epoch in &epochs {
            let mut seen: Vec<usize> = epoch.iter().flatten().flatten().copied().collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..20).collect::<Vec<_>>());
        }
        assert!(steps(&rounds, 1).is_empty(), "after the last epoch");
    }

    #[test]
    fn rounds_cut_the_same_stream_wherever_they_start() {
        let device = [Device::flex()];
        let whole = steps(&Rounds::new(numbers(20), plan(2, None), 0, &device), 2);
        let parts = steps(&Rounds::new(numbers(20), plan(2, Some(3)), 0, &device), 3);
        let resumed = steps(&Rounds::new(numbers(20), plan(2, Some(3)), 1, &device), 2);
        assert_eq!((whole.len(), plan(2, Some(3)).rounds(20)), (8, 3));
        assert_eq!(whole, parts);
        assert_eq!(whole[3..], resumed);
    }

    #[test]
    fn slices_are_parts_of_an_epoch() {
        let device = [Device::flex()];
        let whole = steps(&Rounds::new(numbers(10), plan(1, None), 1, &device), 1).concat();
        let second = Rounds::new(numbers(10), plan(1, None), 1, &device);
        let parts = [second.slice(0, 3), second.slice(3, 10)];
        let parts = parts.map(|part| steps(&*part, 1).concat());
        assert_eq!(parts.concat().concat(), whole.concat());
    }

    #[test]
    fn devices_take_shares_of_the_batches_that_one_would_take() {
        let of = |devices: &[Device]| {
            let rounds = Rounds::new(numbers(10), plan(2, None), 0, devices);
            let rounds = rounds.to_device(&Device::flex());
            rounds.iter().map(|step| step.unwrap()).collect::<Vec<_>>()
        };
        let (one, two) = (of(&[Device::flex()]), of(&[Device::flex(), Device::flex()]));
        assert_eq!(one.len(), two.len());
        for (one, two) in one.iter().zip(&two) {
            assert_eq!(one.seed, two.seed);
            for (whole, shares) in one.batches.iter().zip(&two.batches) {
                assert_eq!(whole.concat(), shares.concat());
                // Three examples are one and two; the last batch's only one is one share.
                let sizes: Vec<usize> = shares.iter().map(Vec::len).collect();
                assert_eq!(sizes, if whole[0].len() == 3 { vec![1, 2] } else { vec![1] });
            }
        }
        let sizes = |items, count| share_out(items, count).map(|share| share.len()).collect::<Vec<_>>();
        assert_eq!(sizes(10, 4), [2, 3, 2, 3]);
        assert_eq!(sizes(0, 2), [0]);
    }

    #[test]
    fn an_example_that_cannot_be_read_ends_the_round_with_its_name() {
        let bad = Numbers {
            count: 12,
            bad: Some(6),
        };
        let set = Ordered::new(bad.clone(), 4, &Device::flex());
        let found: Vec<Result<(), String>> = set.batches().map(|b| b.map(drop).map_err(|e| e.to_string())).collect();
        assert!(found[0].is_ok());
        assert!(found[1].as_ref().unwrap_err().contains("example 6"), "{found:?}");
        assert_eq!(found.len(), 2);
        let rounds = Rounds::new(bad, plan(1, None), 0, &[Device::flex()]);
        let last = rounds.iter().find_map(Result::err).unwrap();
        assert!(last.to_string().contains("example 6"), "{last}");
    }

    #[test]
    fn a_round_that_is_left_early_leaves_nothing_behind() {
        let set = Ordered::new(numbers(40), 4, &Device::flex());
        let progress = {
            let mut batches = set.iter();
            batches.next().unwrap().unwrap();
            batches.progress()
        };
        assert_eq!((progress.items_processed, progress.items_total), (4, 40));
        assert_eq!(set.batches().count(), 10);
    }
}
