//! Continues prompts on a device that computes while the host goes on: tokens are chosen there, several steps are read together,
//! since each reading waits for the device, and the step of greedy decoding is recorded where the device can.

use burn::tensor::Tensor;
use rand::Rng;
use rand::rngs::StdRng;

use super::choice::{self, Waiting};
use super::generator::Generator;
use super::progress::Progress;
use super::reading::{NO_NUMBERS, Reading, Start};
use super::repeated::FEWEST;
use super::sampling::randoms;
use super::settings::Generation;

/// Steps that are read together. A text that ends among them makes the answer late, not different.
pub(super) const STEPS: usize = 8;

/// The prompts of a batch, and what was read of them together.
struct Batch<'a> {
    progress: Progress<'a>,
    /// The prompts that had not ended before: the rows.
    active: Vec<usize>,
    /// The rows that have ended since.
    ended: Vec<bool>,
    /// The tokens of all rows since, step by step.
    read: Vec<Vec<u32>>,
    /// Steps until every text is as long as it may be.
    left: usize,
}

impl Batch<'_> {
    /// Adds the tokens of some steps to the texts that have not ended.
    fn add(&mut self, steps: Vec<Vec<Option<u32>>>, watch: &mut dyn FnMut(usize, &str)) -> Result<(), String> {
        self.left -= steps.len();
        for tokens in steps {
            for (row, prompt) in self.active.iter().copied().enumerate() {
                if !self.ended[row] {
                    let token = tokens[row].ok_or(NO_NUMBERS)?;
                    self.ended[row] = self.progress.push(prompt, token, watch)?;
                }
            }
            // After the end of a text, any token will do.
            self.read
                .push(tokens.into_iter().map(|token| token.unwrap_or(0)).collect());
        }
        Ok(())
    }

    /// The rows that have not ended.
    fn going_on(&self) -> Vec<usize> {
        (0..self.active.len()).filter(|row| !self.ended[*row]).collect()
    }
}

impl Generator<'_> {
    /// Chooses on the device and reads the tokens of up to `steps` steps together; what was chosen after the end of a text
    /// is discarded. `start`: how the step of greedy decoding is recorded.
    ///
    /// # Errors
    /// Logits that are not numbers; an error of the tokenizer.
    pub(super) fn several_at_once(
        &self,
        prompts: &[Vec<u32>],
        settings: &Generation,
        steps: usize,
        start: Option<Start>,
        watch: &mut dyn FnMut(usize, &str),
    ) -> Result<Vec<Vec<u32>>, String> {
        let mut batch = Batch {
            progress: Progress::new(self, prompts.len(), settings),
            active: (0..prompts.len()).collect(),
            ended: vec![false; prompts.len()],
            read: Vec::new(),
            left: settings.max_new_tokens,
        };
        let mut randoms = randoms(prompts.len(), settings);
        let mut start = start.filter(|_| settings.temperature == 0.0);
        let (mut reading, mut logits) =
            Reading::start(self.model, prompts.to_vec(), settings.max_new_tokens, self.device);
        loop {
            let mut repeated = None;
            if let Some(make) = start.filter(|_| batch.left >= FEWEST) {
                (repeated, logits) = reading.repeat(make, logits);
                start = start.filter(|_| repeated.is_some());
            }
            if let Some(mut repeated) = repeated {
                loop {
                    batch.add(repeated.read(steps.min(batch.left)), watch)?;
                    // The few that go on are continued faster without the others.
                    let few = 2 * batch.going_on().len() <= batch.active.len();
                    if few || batch.left == 0 || repeated.left() == 0 {
                        break;
                    }
                }
                reading.resume(repeated);
            } else {
                let count = steps.min(batch.left).min(reading.most_unknown().saturating_add(1));
                let read = self.chosen(&mut reading, logits, settings, count, &batch.active, &mut randoms);
                batch.add(read, watch)?;
            }
            let going_on = batch.going_on();
            if going_on.is_empty() {
                return Ok(batch.progress.into_tokens());
            }
            // The model has not read the last of them.
            let last = batch.read.pop().unwrap_or_default();
            reading.learn(&batch.read);
            batch.read.clear();
            if going_on.len() < batch.active.len() {
                reading.select(&going_on);
                batch.active = going_on.iter().map(|row| batch.active[*row]).collect();
                batch.ended = vec![false; going_on.len()];
            }
            let last: Vec<u32> = going_on.iter().map(|row| last[*row]).collect();
            logits = reading.next(&last);
        }
    }

    /// The tokens of `count` steps, of which the model reads all but the last.
    fn chosen(
        &self,
        reading: &mut Reading,
        mut logits: Tensor<2>,
        settings: &Generation,
        count: usize,
        active: &[usize],
        randoms: &mut [StdRng],
    ) -> Vec<Vec<Option<u32>>> {
        let uniforms = (settings.temperature > 0.0).then(|| {
            let numbers = |prompt: &usize| (0..count).map(|_| randoms[*prompt].random()).collect();
            let numbers: Vec<Vec<f64>> = active.iter().map(numbers).collect();
            choice::uniforms(&numbers, self.device)
        });
        let mut waiting = Waiting::default();
        for step in 0..count {
            let uniforms = uniforms.clone().map(|uniforms| uniforms.narrow(1, step, 1));
            let tokens = choice::choose(logits.clone(), settings, uniforms);
            waiting.add(tokens.clone(), logits.clone());
            if step + 1 < count {
                logits = reading.next_chosen(tokens);
            }
        }
        waiting.read()
    }
}

#[cfg(test)]
mod tests {
    use backbones::lm::config::LayerKind;
    use backbones::lm::rope::{RopeConfig, Scaling};
    use backbones::lm::{Decoder, DecoderConfig};
    use burn::module::{Module, ModuleMapper, Param};
    use burn::tensor::{Device, TensorData};
    use rand::SeedableRng;

    use super::*;
    #[cfg(feature = "ndarray")]
    use crate::language::generation::repeated::Repeated;

    const VOCAB: usize = 40;

    /// Fills a model with numbers of a seed of its own, up to that one: Burn's random source is shared by all tests.
    struct Filling(StdRng, f32);

    impl ModuleMapper for Filling {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| {
                let shape = tensor.shape();
                let numbers = (0..shape.num_elements()).map(|_| (2.0 * self.0.random::<f32>() - 1.0) * self.1);
                Tensor::from_data(TensorData::new(numbers.collect(), shape), &tensor.device())
            })
        }
    }

    fn model(rope: RopeConfig, most: f32, device: &Device) -> Decoder {
        let layers = [None, Some(5)].map(|window| LayerKind { window, rope: Some(0) });
        let config = DecoderConfig::new("llama".into(), VOCAB, 16, 32, layers.to_vec(), 4, 2, 4, 64);
        let model = config.with_ropes(vec![rope]).init(device);
        model.map(&mut Filling(StdRng::seed_from_u64(1), most))
    }

    fn prompts() -> Vec<Vec<u32>> {
        (1..7).map(|length| (0..length).map(|i| i * 5 % 37).collect()).collect()
    }

    /// A quarter of the vocabulary: some texts end early.
    fn eos() -> Vec<u32> {
        (0..VOCAB as u32).step_by(4).collect()
    }

    /// Tokens one by one and several at once; how many there are of each prompt.
    fn agrees(model: &Decoder, settings: &Generation, eos: &[u32]) -> Vec<usize> {
        let device = Device::flex();
        let generator = Generator {
            model,
            tokenizer: None,
            eos,
            device: &device,
        };
        let prompts = prompts();
        let mut watch = |_: usize, _: &str| {};
        let expected = generator.one_by_one(&prompts, settings, &mut watch).unwrap();
        for steps in [1, 3, 8, 100] {
            let found = generator
                .several_at_once(&prompts, settings, steps, None, &mut watch)
                .unwrap();
            assert_eq!(found, expected, "{steps} {settings:?}");
        }
        expected.iter().map(Vec::len).collect()
    }

    #[test]
    fn tokens_that_are_read_together_are_those_that_are_read_one_by_one() {
        let model = model(RopeConfig::new(1e4, 4), 1.0, &Device::flex());
        let greedy = Generation {
            max_new_tokens: 20,
            ..Generation::default()
        };
        agrees(&model, &greedy, &eos());
        let sampled = Generation {
            temperature: 1.0,
            ..greedy
        };
        let few = Generation {
            top_k: 10,
            top_p: 0.9,
            ..sampled.clone()
        };
        for settings in [sampled, few] {
            let lengths = agrees(&model, &settings, &eos());
            assert!(
                lengths.iter().any(|length| *length < 20),
                "no text ended early: {lengths:?}"
            );
        }
    }

    /// Not on flex, whose own attention has no masks.
    #[test]
    #[cfg(feature = "ndarray")]
    #[allow(deprecated)] // upstream deprecates ndarray
    fn a_step_that_is_repeated_gives_what_steps_give() {
        let device = Device::ndarray();
        let model = model(RopeConfig::new(1e4, 4), 1.0, &device);
        let settings = Generation {
            max_new_tokens: FEWEST + 16,
            ..Generation::default()
        };
        let prompts = prompts();
        let mut watch = |_: usize, _: &str| {};
        for eos in [vec![], eos()] {
            let generator = Generator {
                model: &model,
                tokenizer: None,
                eos: &eos,
                device: &device,
            };
            let expected = generator.one_by_one(&prompts, &settings, &mut watch).unwrap();
            for steps in [1, 8] {
                let start = Some(Repeated::start_unrecorded as Start);
                let found = generator
                    .several_at_once(&prompts, &settings, steps, start, &mut watch)
                    .unwrap();
                assert_eq!(found, expected, "{steps} {eos:?}");
            }
        }
    }

    #[test]
    fn texts_that_must_be_read_anew_are_known_by_then() {
        let rope = RopeConfig {
            theta: 1e4,
            dim: 4,
            scaling: Scaling::Longrope {
                short: vec![1.0, 1.0],
                long: vec![2.0, 8.0],
                original: 9.0,
                attention_factor: 1.0,
            },
        };
        let settings = Generation {
            max_new_tokens: 20,
            temperature: 1.0,
            ..Generation::default()
        };
        // Every text grows beyond nine tokens.
        agrees(&model(rope, 1.0, &Device::flex()), &settings, &[]);
    }

    #[test]
    fn weights_that_are_not_numbers_are_refused_where_tokens_are_read_together() {
        let device = Device::flex();
        let model = model(RopeConfig::new(1e4, 4), f32::NAN, &device);
        let generator = Generator {
            model: &model,
            tokenizer: None,
            eos: &[],
            device: &device,
        };
        let refused = generator.several_at_once(&[vec![1, 2]], &Generation::default(), 8, None, &mut |_, _| {});
        assert_eq!(refused.unwrap_err(), NO_NUMBERS);
    }
}
