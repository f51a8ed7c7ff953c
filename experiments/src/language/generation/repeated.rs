//! Greedy decoding by repeating one recorded step: the step finds its token and its column on the device and leaves the next
//! token there, so that the device repeats it without the host, which otherwise launches hundreds of operations per token.

use std::sync::{Mutex, PoisonError};

use backbones::lm::{Cache, Decoder, Layout};
use burn::tensor::{DType, Device, FloatDType, IndexingUpdateOp, Int, Tensor};
use capture::Recording;

/// Columns by which what the steps see grows: more of them cost time in every step, and a new recording costs some steps.
const COLUMNS: usize = 256;
/// Fewest tokens for which a recording pays.
pub const FEWEST: usize = 32;
/// Steps that are compared with their repetition.
const COMPARED: usize = 3;
/// Largest relative difference of sums of logits that are equal but for the order of summation.
const ROUNDING: f32 = 1e-3;

/// See [`records`].
static RECORDS: Mutex<Option<bool>> = Mutex::new(None);

/// Whether the last device that was to record a step did; `None` before. A device that did not is not asked again.
pub fn records() -> Option<bool> {
    *RECORDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the step changes.
struct State {
    /// The tokens to be read next, `[rows, 1]`.
    tokens: Tensor<2, Int>,
    cache: Cache,
    /// For each column, the token that belongs there and the sum of the logits that it was chosen from, `[rows, 2, columns]`,
    /// up to that of the next token.
    chosen: Tensor<3>,
    /// How often the step ran on the host.
    runs: usize,
}

/// Texts of a batch that grow together by a recorded step.
pub struct Repeated {
    recording: Recording<State>,
    /// The column of the first token that was chosen here.
    first: usize,
    /// Columns there are.
    columns: usize,
    /// Tokens of each text that were read from here.
    read: usize,
    /// Tokens of each text that the model has read here.
    fed: usize,
}

impl Repeated {
    /// Continues the texts in `cache`, whose next tokens have these `logits`. There must be room for [`FEWEST`] tokens.
    ///
    /// # Errors
    /// The device or the model cannot; with the cache as it was, or none if it is lost.
    pub fn start(
        model: &Decoder,
        cache: Box<Cache>,
        logits: Tensor<2>,
        device: &Device,
    ) -> Result<Self, Option<Box<Cache>>> {
        if records() == Some(false) {
            return Err(Some(cache));
        }
        let started = Self::recorded(model, cache, logits, device).map_err(Some)?;
        let started = match started.recording.is_recorded() {
            true => started.compared(),
            false => None,
        };
        *RECORDS.lock().unwrap_or_else(PoisonError::into_inner) = Some(started.is_some());
        started.ok_or(None)
    }

    /// The same on a device that runs the step again instead of recording it.
    #[cfg(all(test, feature = "ndarray"))]
    pub fn start_unrecorded(
        model: &Decoder,
        cache: Box<Cache>,
        logits: Tensor<2>,
        device: &Device,
    ) -> Result<Self, Option<Box<Cache>>> {
        let started = Self::recorded(model, cache, logits, device).map_err(Some)?;
        assert!(!started.recording.is_recorded());
        started.compared().ok_or(None)
    }

    /// Records the step; the cache as it was if the model cannot.
    fn recorded(
        model: &Decoder,
        mut cache: Box<Cache>,
        logits: Tensor<2>,
        device: &Device,
    ) -> Result<Self, Box<Cache>> {
        let first = cache.tokens();
        let columns = (first + FEWEST).next_multiple_of(COLUMNS).min(cache.capacity());
        // Virtual tokens of an adapter may have taken the room.
        if columns < first + FEWEST || !model.counts_columns(&mut cache, columns, device) {
            return Err(cache);
        }
        let Some(column) = cache.column() else {
            return Err(cache);
        };
        let [rows, _] = logits.dims();
        let tokens = logits.clone().argmax(1);
        let chosen = Tensor::zeros([rows, 2, columns + 1], (device, DType::F32));
        let state = State {
            chosen: noted(chosen, column, tokens.clone(), logits),
            tokens,
            cache: *cache,
            runs: 0,
        };
        let model = model.clone();
        Ok(Self {
            recording: Recording::new(device, state, move |state| step(&model, state)),
            first,
            columns,
            read: 0,
            fed: 0,
        })
    }

    /// This, if repetitions give what the step gave when it ran.
    fn compared(mut self) -> Option<Self> {
        // The last run was recorded.
        let ran = self.recording.read(|state| state.runs).saturating_sub(1).min(COMPARED);
        let expected = self.noted(self.first, ran + 1);
        let first = self.first;
        self.recording.change(|state| state.restarted(first, ran));
        for _ in 0..ran {
            self.recording.repeat();
        }
        self.fed = ran;
        let found = self.noted(self.first, ran + 1);
        (ran > 0 && are_same(&expected, &found, ran + 1)).then_some(self)
    }

    /// How many more tokens of each text there are columns for.
    pub fn left(&self) -> usize {
        self.columns + 1 - self.first - self.read
    }

    /// The next tokens of each text, step by step, at most [`Repeated::left`]; `None` where the logits are not numbers.
    pub fn read(&mut self, steps: usize) -> Vec<Vec<Option<u32>>> {
        let steps = steps.min(self.left());
        while self.fed + 1 < self.read + steps {
            self.recording.repeat();
            self.fed += 1;
        }
        let noted = self.noted(self.first + self.read, steps);
        self.read += steps;
        let token = |row: &[f32], step: usize| (row[steps + step] < f32::INFINITY).then_some(row[step] as u32);
        (0..steps)
            .map(|step| noted.chunks_exact(2 * steps).map(|row| token(row, step)).collect())
            .collect()
    }

    /// The cache, with all tokens that were read from here but the last of each text.
    pub fn end(self) -> Cache {
        let mut cache = self.recording.end().cache;
        cache.stop_counting(self.read.saturating_sub(1));
        cache
    }

    /// What was noted of `count` columns, `[rows, 2, count]`.
    fn noted(&self, from: usize, count: usize) -> Vec<f32> {
        let part = self.recording.read(|state| state.chosen.clone().narrow(2, from, count));
        part.into_data().iter().collect()
    }
}

impl State {
    /// At the column `first` again, what was noted of the `steps` after it forgotten, in place: it must not be taken for what
    /// is noted next.
    fn restarted(mut self, first: usize, steps: usize) -> Self {
        let [rows, _, _] = self.chosen.dims();
        let tokens = self.chosen.clone().slice([0..rows, 0..1, first..first + 1]);
        let tokens = tokens.reshape([rows, 1]).int();
        let nothing = Tensor::zeros([rows, 2, steps], (&self.chosen.device(), DType::F32)).sub_scalar(1.0);
        self.cache.go_to(first);
        Self {
            tokens: self.tokens.slice_assign([0..rows, 0..1], tokens),
            chosen: self
                .chosen
                .slice_assign([0..rows, 0..2, first + 1..first + 1 + steps], nothing),
            ..self
        }
    }
}

/// One step: reads the tokens, chooses the next ones, notes them and leaves them to be read.
fn step(model: &Decoder, state: State) -> State {
    let State {
        tokens,
        mut cache,
        chosen,
        runs,
    } = state;
    let [rows, _] = tokens.dims();
    let hidden = model.hidden(tokens.clone(), &Layout::dense(rows, 1), Some(&mut cache));
    let logits = model.logits(hidden).squeeze_dim::<2>(1);
    let next = logits.clone().argmax(1);
    State {
        chosen: match cache.column() {
            Some(column) => noted(chosen, column, next.clone(), logits),
            None => chosen,
        },
        tokens: tokens.slice_assign([0..rows, 0..1], next),
        cache,
        runs: runs + 1,
    }
}

/// `chosen` with these tokens, `[rows, 1]`, and the sums of their logits at `column`, in place.
fn noted(chosen: Tensor<3>, column: Tensor<1, Int>, tokens: Tensor<2, Int>, logits: Tensor<2>) -> Tensor<3> {
    let [rows, _] = tokens.dims();
    // As in `choice`: f32 holds all tokens, and a sum is not a number if one of the logits is none.
    let sums = logits.cast(DType::F32).sum_dim(1);
    let both = Tensor::cat(vec![tokens.cast(FloatDType::F32), sums], 1);
    chosen.select_assign(2, column, both.reshape([rows, 2, 1]), IndexingUpdateOp::Assign)
}

/// Whether the tokens are equal and the sums of their logits nearly so, or both no numbers; each `[rows, 2, columns]`.
fn are_same(expected: &[f32], found: &[f32], columns: usize) -> bool {
    let near = |a: f32, b: f32| (a - b).abs() <= ROUNDING * a.abs().max(1.0) || a.is_nan() && b.is_nan();
    let mut pairs = expected.iter().zip(found).enumerate();
    expected.len() == found.len()
        && pairs.all(|(at, (a, b))| match at / columns % 2 {
            0 => a == b,
            _ => near(*a, *b),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_that_stand_still_are_noticed() {
        // Two rows of two columns: tokens, then sums.
        let expected = [5.0, 7.0, 0.25, f32::NAN, 1.0, 1.0, 100.0, -3.0];
        assert!(are_same(&expected, &expected, 2));
        for (at, odd) in [(1, 5.0), (1, -1.0), (2, 0.26), (3, 0.0), (7, -1.0)] {
            let mut found = expected;
            found[at] = odd;
            assert!(!are_same(&expected, &found, 2), "{at}");
        }
        assert!(!are_same(&expected, &expected[..4], 2));
    }
}
