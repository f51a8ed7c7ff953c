//! Tokens chosen where the logits are, so that ids alone travel to the host and several steps can be read together. The
//! rules are those of [`super::sampling`], in f32: with the same uniform numbers, both choose the same tokens but for
//! rounding.

use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};

use super::settings::Generation;

/// Candidates of top-k that a device sorts by itself: a GPU keeps them in registers.
const MOST_CANDIDATES: usize = 64;
/// Below this temperature, its inverse times a logit may overflow f32.
const COLDEST: f64 = 1e-6;
/// The largest uniform number: times a total in f32, it stays below the total.
const BELOW_ONE: f32 = 1.0 - f32::EPSILON;
/// Weights that are summed up one by one: a GPU's cumulative sum reads, for each of them, all before it.
const BLOCK: usize = 512;

/// True if a device can choose by these settings: its scores are taken as the model gives them, and what is sampled from
/// is either the whole vocabulary or a few candidates (a nucleus of the whole vocabulary would have to be sorted).
pub fn is_on_device(settings: &Generation) -> bool {
    let as_given = settings.repetition_penalty == 1.0 && settings.no_repeat_ngram_size == 0;
    let sorted = match settings.top_k {
        0 => settings.top_p == 1.0,
        top_k => top_k <= MOST_CANDIDATES,
    };
    as_given && (settings.temperature == 0.0 || settings.temperature >= COLDEST && sorted)
}

/// The next token of each row of `logits`, `[rows, vocab]`: the likeliest one, the first of several, or one sampled with
/// that row's number in [0, 1) of `uniforms`, `[rows, 1]`. Result `[rows, 1]`.
pub fn choose(logits: Tensor<2>, settings: &Generation, uniforms: Option<Tensor<2>>) -> Tensor<2, Int> {
    let Some(uniforms) = uniforms else {
        return logits.argmax(1);
    };
    let logits = logits.cast(DType::F32);
    let [_, vocab] = logits.dims();
    let weights = |logits: Tensor<2>, largest: Tensor<2>| {
        let scale = (1.0 / settings.temperature) as f32;
        (logits - largest).mul_scalar(scale).exp()
    };
    if settings.top_k == 0 || settings.top_k >= vocab && settings.top_p == 1.0 {
        let largest = logits.clone().max_dim(1);
        return drawn_of_many(weights(logits, largest), uniforms);
    }
    let (best, tokens) = logits.topk_with_indices(settings.top_k.min(vocab), 1);
    let weights = weights(best.clone(), best.narrow(1, 0, 1));
    let weights = match settings.top_p < 1.0 {
        true => nucleus(weights, settings.top_p as f32),
        false => weights,
    };
    tokens.gather(1, drawn(weights, uniforms))
}

/// Numbers in [0, 1), `[rows, steps]`, as [`choose`] takes them, a column at a time.
pub fn uniforms(numbers: &[Vec<f64>], device: &Device) -> Tensor<2> {
    let shape = [numbers.len(), numbers.first().map_or(0, Vec::len)];
    let numbers: Vec<f32> = numbers
        .iter()
        .flatten()
        .map(|number| (*number as f32).min(BELOW_ONE))
        .collect();
    Tensor::from_data(TensorData::new(numbers, shape), (device, DType::F32))
}

/// `weights`, each row descending, with zeros for those before which there is `top_p` of the row's total.
fn nucleus(weights: Tensor<2>, top_p: f32) -> Tensor<2> {
    let [_, count] = weights.dims();
    let sums = weights.clone().cumsum(1);
    let enough = sums.clone().narrow(1, count - 1, 1).mul_scalar(top_p);
    let before = sums - weights.clone();
    weights.mask_fill(before.greater_equal(enough), 0.0)
}

/// For each row the first weight up to which there is more than that part of the row's total: few weights.
fn drawn(weights: Tensor<2>, parts: Tensor<2>) -> Tensor<2, Int> {
    let [_, count] = weights.dims();
    let sums = weights.cumsum(1);
    let target = sums.clone().narrow(1, count - 1, 1) * parts;
    let passed = sums.lower_equal(target).int().sum_dim(1);
    passed.clamp_max(count as i64 - 1)
}

/// As [`drawn`]: first the block of weights, then the weight in it.
fn drawn_of_many(weights: Tensor<2>, parts: Tensor<2>) -> Tensor<2, Int> {
    let [rows, count] = weights.dims();
    let blocks = count.div_ceil(BLOCK);
    let weights = match blocks * BLOCK - count {
        0 => weights,
        more => {
            let zeros = Tensor::zeros([rows, more], (&weights.device(), weights.dtype()));
            Tensor::cat(vec![weights, zeros], 1)
        }
    };
    let weights = weights.reshape([rows, blocks, BLOCK]);
    let ends = weights.clone().sum_dim(2).reshape([rows, blocks]).cumsum(1);
    let target = ends.clone().narrow(1, blocks - 1, 1) * parts;
    let passed = ends.clone().lower_equal(target.clone());
    let block = passed.clone().int().sum_dim(1).clamp_max(blocks as i64 - 1);
    let before = ends.mask_fill(passed.bool_not(), 0.0).max_dim(1);
    let places = block.clone().reshape([rows, 1, 1]).expand([rows, 1, BLOCK]);
    let inside = weights.gather(1, places).reshape([rows, BLOCK]).cumsum(1);
    // The two sums of one block may differ in the last bits: the rest stays below the second one.
    let most = inside.clone().narrow(1, BLOCK - 1, 1).mul_scalar(BELOW_ONE);
    let rest = (target - before).min_pair(most);
    let place = inside.lower_equal(rest).int().sum_dim(1);
    (block.mul_scalar(BLOCK as i64) + place).clamp_max(count as i64 - 1)
}

/// Tokens of several steps that wait on the device, to be read in one transfer.
#[derive(Default)]
pub struct Waiting {
    steps: Vec<Tensor<2>>,
}

impl Waiting {
    /// Adds the tokens of one step, `[rows, 1]`, and the `logits` that they were chosen from.
    pub fn add(&mut self, tokens: Tensor<2, Int>, logits: Tensor<2>) {
        // f32 holds whole numbers to 2^24, more than any vocabulary has.
        self.steps.push(tokens.cast(FloatDType::F32));
        // A sum is NaN or +∞ if one of them is; in f32, since f16 might overflow.
        self.steps.push(logits.cast(DType::F32).sum_dim(1));
    }

    /// For each step, the token of each row; `None` where the logits are not numbers.
    pub fn read(self) -> Vec<Vec<Option<u32>>> {
        let count = self.steps.len();
        if count == 0 {
            return Vec::new();
        }
        let values: Vec<f32> = Tensor::cat(self.steps, 1).into_data().iter().collect();
        let pair = |row: &[f32], step: usize| (row[2 * step + 1] < f32::INFINITY).then_some(row[2 * step] as u32);
        (0..count / 2)
            .map(|step| values.chunks_exact(count).map(|row| pair(row, step)).collect())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::language::generation::sampling;

    /// Random logits of a vocabulary.
    fn scores(vocab: usize, random: &mut StdRng) -> Vec<f32> {
        (0..vocab).map(|_| random.random::<f32>() * 8.0 - 4.0).collect()
    }

    fn on_flex(scores: &[Vec<f32>], settings: &Generation, numbers: &[f64]) -> Vec<u32> {
        let device = Device::flex();
        let shape = [scores.len(), scores[0].len()];
        let logits = Tensor::<2>::from_data(TensorData::new(scores.concat(), shape), &device);
        let numbers: Vec<Vec<f64>> = numbers.iter().map(|number| vec![*number]).collect();
        let numbers = (settings.temperature > 0.0).then(|| uniforms(&numbers, &device));
        let mut waiting = Waiting::default();
        waiting.add(choose(logits.clone(), settings, numbers), logits);
        waiting.read().concat().into_iter().map(Option::unwrap).collect()
    }

    #[test]
    #[cfg(feature = "ndarray")]
    #[allow(deprecated)] // upstream deprecates ndarray
    fn the_first_of_the_likeliest_is_chosen_as_on_the_host() {
        let scores = [
            [0.5f32, 2.0, -1.0, 2.0, 1.0],
            [-3.0, -2.5, -9.0, -4.0, -2.5],
            [7.0, 7.0, 7.0, 7.0, 7.0],
        ];
        for device in [Device::flex(), Device::ndarray()] {
            let logits = Tensor::<2>::from_data(scores, &device);
            let host: Vec<Option<u32>> = scores.iter().map(|row| Some(sampling::likeliest(row))).collect();
            let mut waiting = Waiting::default();
            waiting.add(choose(logits.clone(), &Generation::default(), None), logits);
            assert_eq!(waiting.read(), [host]);
        }
    }

    #[test]
    fn steps_are_read_in_order_and_what_is_no_number_has_no_token() {
        let device = Device::flex();
        let mut waiting = Waiting::default();
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3.0] {
            let logits = Tensor::<2>::from_data([[0.5f32, 2.0, 1.0], [1.0, 0.0, odd]], &device);
            waiting.add(choose(logits.clone(), &Generation::default(), None), logits);
        }
        let expected = [None, None, Some(0), Some(2)].map(|second| vec![Some(1), second]);
        assert_eq!(waiting.read(), expected);
    }

    #[test]
    fn with_the_same_uniform_numbers_a_device_draws_what_the_host_draws() {
        let mut random = StdRng::seed_from_u64(3);
        let sampled = |temperature: f64, top_k: usize, top_p: f64| Generation {
            temperature,
            top_k,
            top_p,
            ..Generation::default()
        };
        let cases = [
            Generation::default(),
            sampled(1.0, 0, 1.0),
            sampled(0.7, 2000, 1.0),
            sampled(1.3, 20, 0.8),
            sampled(0.5, 64, 0.95),
        ];
        // Fewer than a block, whole blocks, and a part of one more.
        for vocab in [30, 1024, 1100] {
            for settings in &cases {
                assert!(settings.top_k > vocab || is_on_device(settings));
                let rows: Vec<Vec<f32>> = (0..40).map(|_| scores(vocab, &mut random)).collect();
                let mut randoms: Vec<StdRng> = (0..40).map(StdRng::seed_from_u64).collect();
                let numbers: Vec<f64> = randoms.clone().iter_mut().map(|random| random.random()).collect();
                let host: Vec<u32> = rows
                    .iter()
                    .zip(&mut randoms)
                    .map(|(row, random)| sampling::choose(settings, row, random))
                    .collect();
                assert_eq!(on_flex(&rows, settings, &numbers), host, "{vocab} {settings:?}");
            }
        }
    }

    #[test]
    fn top_k_alone_draws_as_often_as_the_weights_say() {
        let settings = Generation {
            temperature: 1.0,
            top_k: 2,
            ..Generation::default()
        };
        let row = [0.5f32, 0.125, 0.25, 0.125].map(f32::ln).to_vec();
        let numbers: Vec<f64> = (0..300).map(|place| f64::from(place) / 300.0).collect();
        let drawn = on_flex(&vec![row; 300], &settings, &numbers);
        let count = |token: u32| drawn.iter().filter(|other| **other == token).count();
        assert!(count(0).abs_diff(200) <= 1 && count(0) + count(2) == 300, "{drawn:?}");
    }

    #[test]
    fn a_draw_never_leaves_the_vocabulary_or_meets_a_token_of_no_weight() {
        let settings = Generation {
            temperature: 1.0,
            ..Generation::default()
        };
        for vocab in [3, 600] {
            // The only tokens that are possible are the second and the third.
            let mut row = vec![f32::NEG_INFINITY; vocab];
            row[1..3].fill(1.0);
            let numbers = [0.0, 0.499, 0.501, 1.0 - f64::EPSILON];
            assert_eq!(on_flex(&vec![row; 4], &settings, &numbers), [1, 1, 2, 2]);
        }
    }

    #[test]
    fn what_must_be_sorted_or_known_on_the_host_stays_there() {
        let base = Generation {
            temperature: 1.0,
            ..Generation::default()
        };
        let with = |change: fn(&mut Generation)| {
            let mut settings = base.clone();
            change(&mut settings);
            is_on_device(&settings)
        };
        assert!(is_on_device(&Generation::default()) && is_on_device(&base));
        assert!(with(|settings| settings.top_k = 50));
        assert!(!with(|settings| settings.top_k = 500));
        assert!(!with(|settings| settings.top_p = 0.9));
        assert!(!with(|settings| settings.repetition_penalty = 1.1));
        assert!(!with(|settings| settings.no_repeat_ngram_size = 3));
        assert!(!with(|settings| settings.temperature = 1e-30));
    }
}
