//! The training objective of an adapted decoder: the loss on the response only.

use backbones::lm::Decoder;
use burn::optim::GradientsParams;
use burn::tensor::Device;
use kernels::{linear_cross_entropy, linear_nll};
use wegeft::Adapted;

use crate::language::checkpointing;
use crate::language::data::Batch;
use crate::language::head::{head, response_rows};
use crate::train::step::{Objective, Part};

/// Cross-entropy of the target tokens, averaged over all target tokens of a step.
#[derive(Debug, Clone, Copy)]
pub struct Response {
    /// Save only the inputs of the layers for the backward pass and recompute each layer.
    pub checkpointing: bool,
}

impl Objective<Decoder> for Response {
    type Batch = Batch;
    const WEIGHS: bool = true;

    fn terms(&self, batch: &Batch) -> usize {
        batch.count()
    }

    fn items(&self, batch: &Batch) -> usize {
        batch.tokens()
    }

    fn loss_and_grads(
        &self,
        adapted: &Adapted<Decoder>,
        batch: Batch,
        denominator: f64,
        seed: u64,
    ) -> (Part, GradientsParams) {
        if self.checkpointing {
            let (loss, grads) = checkpointing::loss_and_grads(adapted, &batch, denominator, seed);
            return (Part::of_loss(loss), grads);
        }
        let bound = adapted.bind();
        let head = head(adapted, &bound);
        let hidden = response_rows(bound.hidden(batch.ids.clone(), &batch.layout, None), &batch);
        let loss = linear_cross_entropy(hidden, &head, batch.targets, denominator);
        let grads = GradientsParams::from_grads(loss.backward(), adapted);
        (Part::of_loss(loss.inner()), grads)
    }

    fn evaluate(&self, adapted: &Adapted<Decoder>, batch: Batch, denominator: f64) -> Part {
        let bound = adapted.bind();
        let head = head(adapted, &bound);
        let hidden = bound.hidden(batch.ids.clone(), &batch.layout, None);
        let loss = linear_nll(response_rows(hidden, &batch), &head, batch.targets).sum();
        Part::of_loss(loss.div_scalar(denominator))
    }

    fn within<R: Send>(&self, device: &Device, work: impl FnOnce() -> R + Send) -> R {
        kernels::with_pool(device, work)
    }
}

#[cfg(test)]
mod tests {
    use backbones::lm::{LoadOptions, load_lm};
    use wegeft::AdapterConfig;

    use super::*;
    use crate::cli::shipped;
    use crate::language::data::{Sequence, Values};
    use crate::train::devices::Team;
    use crate::train::loss_scale::LossScale;
    use crate::train::step::{Reduction, train_step};
    use crate::train::stream::Step;

    #[test]
    fn a_loss_scale_changes_no_gradient() {
        let device = Device::flex().autodiff();
        let model = load_lm(&shipped::language_model().unwrap(), &LoadOptions::default(), &device)
            .unwrap()
            .model;
        let adapter = AdapterConfig::lora(4).with_target_modules(["q_proj", "down_proj"]);
        let adapted = adapter.init(model).unwrap();
        let sequence = |from: u32, count: u32| Sequence {
            ids: (from..from + count).collect(),
            learned: (0..count).map(|place| place > 3).collect(),
            starts: Vec::new(),
        };
        let sequences = [sequence(5, 12), sequence(40, 9), sequence(70, 15)];
        let step = Step {
            batches: vec![
                vec![Batch::new(sequences[..2].iter(), &Device::flex())],
                vec![Batch::new(sequences[2..].iter(), &Device::flex())],
            ],
            seed: 1,
        };
        let reduction = |mean_of_batch_means| Reduction {
            max_grad_norm: 0.0,
            mean_of_batch_means,
            checks_gradients: false,
            loss_scale: None,
        };
        let scaled = Reduction {
            loss_scale: Some(LossScale::default()),
            ..reduction(false)
        };
        let response = Response { checkpointing: false };
        let team = Team::new(std::slice::from_ref(&device));
        let grads = |output: burn::train::TrainOutput<crate::train::step::StepOutput>| {
            let grads = wegeft::site::params(adapted.bank())
                .into_iter()
                .filter_map(|param| output.grads.get::<2>(param.id))
                .map(|grad| grad.into_data().try_to_vec::<f32>().unwrap())
                .collect::<Vec<_>>();
            (output.item.loss(), grads.concat())
        };
        let before = grads(train_step(&response, reduction(false), &adapted, step.clone(), &team));
        let under_a_scale = grads(train_step(&response, scaled, &adapted, step.clone(), &team));
        assert!(before.0 > 1.0 && before.1.iter().any(|grad| *grad != 0.0));
        // A power of two is exact in f32.
        assert_eq!(before, under_a_scale);

        // The mean of the batches' means is another objective, where they have different numbers of target tokens.
        let means = grads(train_step(&response, reduction(true), &adapted, step.clone(), &team));
        let alone = step.batches.into_iter().map(|batch| {
            let step = Step {
                batches: vec![batch],
                seed: 1,
            };
            train_step(&response, reduction(false), &adapted, step, &team)
                .item
                .loss()
        });
        let expected = alone.sum::<f64>() / 2.0;
        assert!((means.0 - expected).abs() < 1e-5, "{} {expected}", means.0);
        assert!((means.0 - before.0).abs() > 1e-3, "{} {}", means.0, before.0);
    }

    #[test]
    fn a_batch_padded_to_a_bucket_has_the_same_loss_and_gradients() {
        let device = Device::flex();
        let folder = shipped::language_model().unwrap();
        let model = load_lm(&folder, &LoadOptions::default(), &device.clone().autodiff()).unwrap();
        let adapted = AdapterConfig::wegeft(4).with_target_modules(["q_proj"]);
        let adapted = adapted.init(model.model).unwrap();
        let sequence = |from: u32, starts: &[usize]| Sequence {
            ids: (from..from + 12 + from % 5).collect(),
            learned: (0..12 + from % 5).map(|place| place > 3).collect(),
            starts: starts.to_vec(),
        };
        for sequences in [
            [sequence(5, &[]), sequence(41, &[])],
            [sequence(5, &[7]), sequence(42, &[])],
        ] {
            let values = || Values::new(sequences.iter());
            let batches = [values(), values().in_buckets()].map(|values| values.on_device(&device));
            assert_eq!(batches[0].count(), batches[1].count());
            assert_eq!((batches[1].ids.dims(), batches[1].targets.dims()), ([2, 32], [32]));
            let response = Response { checkpointing: false };
            let [own, bucketed] = batches.map(|batch| {
                let evaluated = response.evaluate(&adapted, batch.clone(), 20.0).loss;
                let (part, grads) = response.loss_and_grads(&adapted, batch, 20.0, 0);
                let params = wegeft::site::params(adapted.bank());
                let grads = params.into_iter().filter_map(|param| grads.get::<2>(param.id));
                let grads = grads.map(|grad| grad.into_data().try_to_vec::<f32>().unwrap());
                let mut numbers = grads.collect::<Vec<_>>().concat();
                let losses = [part.loss, evaluated].map(|loss| loss.into_scalar::<f32>());
                assert!(losses[0] > 1.0 && numbers.iter().any(|grad| *grad != 0.0));
                numbers.extend(losses);
                numbers
            });
            assert_eq!(own.len(), bucketed.len());
            for (own, bucketed) in own.iter().zip(&bucketed) {
                assert!((own - bucketed).abs() < 1e-5, "{own} {bucketed}");
            }
        }
    }
}
