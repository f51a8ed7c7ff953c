//! One optimizer step: the gradients of its batches, summed over batches and devices, and clipped.

use burn::module::{Module, ModuleDisplay};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, ExecutionError, Int, Tensor};
use burn::train::metric::{AccuracyInput, Adaptor, LossInput};
use burn::train::{ClassificationOutput, ItemLazy, TrainOutput};
use wegeft::Adapted;
use wegeft::methods::adalora::AdaLoraConfig;

use crate::cli::remote::is_remote;
use crate::train::clipping::{clipped, is_finite, norm, scaled};
use crate::train::devices::{Kept, Team};
use crate::train::loss_scale::LossScale;
use crate::train::score::ScoreInput;
use crate::train::stream::Step;
use crate::train::tensors::first_not_finite;
use crate::train::throughput::ItemsInput;
use crate::train::vector::{Gradients, Values, carried, copy};

/// The objective: for each batch, a sum over its terms (images, target tokens), divided by a denominator.
pub trait Objective<M: Module + ModuleDisplay>: Clone + Send + Sync + 'static {
    /// Type of a batch.
    type Batch: Send + 'static;
    /// True if the mean loss of a round weights steps by their number of terms, false if all steps have the same
    /// weight.
    const WEIGHS: bool;

    /// Told before the first step how many of them earlier sessions took.
    fn begin(&self, _steps_done: usize) {}

    /// Number of terms in the batch.
    fn terms(&self, batch: &Self::Batch) -> usize;

    /// Number of items for throughput: images, or tokens including padding.
    fn items(&self, batch: &Self::Batch) -> usize;

    /// Loss of the batch divided by `denominator`, which contains the loss scale, and its gradients. If random numbers are
    /// seeded, `seed` is their seed.
    fn loss_and_grads(
        &self,
        adapted: &Adapted<M>,
        batch: Self::Batch,
        denominator: f64,
        seed: u64,
    ) -> (Part, GradientsParams);

    /// Loss of the batch divided by `denominator`.
    fn evaluate(&self, adapted: &Adapted<M>, batch: Self::Batch, denominator: f64) -> Part;

    /// Does `work` on `device` in the thread that is best for it.
    fn within<R: Send>(&self, device: &Device, work: impl FnOnce() -> R + Send) -> R {
        let _ = device;
        work()
    }

    /// Hears of the end of each step.
    fn stepped(&self) {}
}

/// What a batch, or a device's share of one, gives beside its gradients.
#[derive(Clone)]
pub struct Part {
    /// `[1]`
    pub loss: Tensor<1>,
    /// For classifiers: logits `[batch, classes]` and labels `[batch]`.
    pub predictions: Option<(Tensor<2>, Tensor<1, Int>)>,
    /// For regressions: predicted and correct numbers, `[batch]` each.
    pub numbers: Option<(Tensor<1>, Tensor<1>)>,
}

impl Part {
    /// A loss without predictions.
    pub fn of_loss(loss: Tensor<1>) -> Self {
        Self {
            loss,
            predictions: None,
            numbers: None,
        }
    }

    /// It on `device`, without the graph.
    fn on(self, device: &Device) -> Self {
        let apart = |from: &Device| from != device && (is_remote(from) || is_remote(device));
        fn moved<const D: usize>(tensor: Tensor<D>, device: &Device, apart: bool) -> Tensor<D> {
            match apart {
                true => carried(tensor, device),
                false => tensor.without_autodiff().to_device(device),
            }
        }
        let numbers = |(predicted, right): (Tensor<1>, Tensor<1>)| {
            let apart = apart(&predicted.device());
            (moved(predicted, device, apart), moved(right, device, apart))
        };
        // Backends differ in the type of their integers.
        let integers = Tensor::<1, Int>::empty([0], device).dtype();
        let predictions = |(logits, labels): (Tensor<2>, Tensor<1, Int>)| {
            let apart = apart(&logits.device());
            let labels = match apart {
                true => Tensor::from_data(labels.without_autodiff().into_data(), device),
                false => labels.without_autodiff().to_device(device),
            };
            (moved(logits, device, apart), labels.cast(integers))
        };
        let loss = apart(&self.loss.device());
        Self {
            loss: moved(self.loss, device, loss),
            predictions: self.predictions.map(predictions),
            numbers: self.numbers.map(numbers),
        }
    }
}

/// How the gradients of a step are computed from its batches.
#[derive(Debug, Clone)]
pub struct Reduction {
    /// Maximum norm over all gradients, to which they are scaled down; 0 turns this off.
    pub max_grad_norm: f64,
    /// If true, the loss is the mean of the batches' means instead of the mean over all their terms.
    pub mean_of_batch_means: bool,
    /// If true, gradients are looked at before they are clipped, which waits for the device: NaN in one of them would be
    /// in all of them afterwards.
    pub checks_gradients: bool,
    /// What the loss is multiplied by in f16; the gradients are divided by it before they are clipped.
    pub loss_scale: Option<LossScale>,
}

/// Input of the metrics for a step.
pub struct StepOutput {
    loss: Tensor<1>,
    weight: usize,
    items: usize,
    predictions: Option<(Tensor<2>, Tensor<1, Int>)>,
    numbers: Option<(Tensor<1>, Tensor<1>)>,
    /// The first tensor whose gradient is not finite, if [`Reduction::checks_gradients`] or the loss is scaled.
    pub(crate) bad_gradient: Option<String>,
    /// True if the step is not taken because a gradient overflowed under the loss scale.
    pub(crate) skipped: bool,
}

impl StepOutput {
    /// The loss as a number; waits for the device.
    pub fn loss(&self) -> f64 {
        self.loss.clone().into_scalar()
    }

    fn new(parts: Vec<Part>, weight: usize, items: usize) -> Self {
        let mut losses = Vec::with_capacity(parts.len());
        let (mut predictions, mut numbers) = (Vec::new(), Vec::new());
        for part in parts {
            losses.push(part.loss);
            predictions.push(part.predictions);
            numbers.push(part.numbers);
        }
        let loss = joined(losses, |losses| Tensor::cat(losses, 0).sum());
        let predictions: Option<Vec<_>> = predictions.into_iter().collect();
        let predictions = predictions.map(|all| {
            joined(all, |all| {
                let (logits, labels): (Vec<_>, Vec<_>) = all.into_iter().unzip();
                (Tensor::cat(logits, 0), Tensor::cat(labels, 0))
            })
        });
        let numbers: Option<Vec<_>> = numbers.into_iter().collect();
        let numbers = numbers.map(|all| {
            joined(all, |all| {
                let (predicted, right): (Vec<_>, Vec<_>) = all.into_iter().unzip();
                (Tensor::cat(predicted, 0), Tensor::cat(right, 0))
            })
        });
        Self {
            loss,
            weight,
            items,
            predictions,
            numbers,
            bad_gradient: None,
            skipped: false,
        }
    }
}

/// The only one of `all` as it is, several of them joined.
fn joined<T>(all: Vec<T>, join: impl FnOnce(Vec<T>) -> T) -> T {
    match <[T; 1]>::try_from(all) {
        Ok([one]) => one,
        Err(all) => join(all),
    }
}

/// A batch, or a device's share of one, and what its loss is divided by.
struct Share<B> {
    batch: B,
    denominator: f64,
    seed: u64,
}

/// What some shares of a step come to on one device.
struct Sum {
    parts: Vec<Part>,
    grads: GradientsParams,
}

impl Sum {
    fn of<M, O>(objective: &O, adapted: &Adapted<M>, shares: Vec<Share<O::Batch>>) -> Self
    where
        M: Module + ModuleDisplay,
        O: Objective<M>,
    {
        let count = shares.len();
        let mut sum = GradientsAccumulator::new();
        let mut alone = None;
        let mut parts = Vec::with_capacity(count);
        for share in shares {
            let (part, grads) = objective.loss_and_grads(adapted, share.batch, share.denominator, share.seed);
            parts.push(part);
            match count {
                1 => alone = Some(grads),
                _ => sum.accumulate(adapted, grads),
            }
        }
        Self {
            parts,
            grads: alone.unwrap_or_else(|| sum.grads()),
        }
    }

    /// It on `device`, as one of `here`; `there` computed it, on another machine.
    fn home<M: Module + ModuleDisplay>(self, there: &Adapted<M>, here: &Adapted<M>, device: &Device) -> Self {
        Self {
            grads: Gradients::of(there, self.grads).on(here, device),
            parts: self.parts.into_iter().map(|part| part.on(device)).collect(),
        }
    }

    /// Those of several devices, on the first one.
    fn joined<M: Module + ModuleDisplay>(sums: Vec<Self>, adapted: &Adapted<M>, device: &Device) -> Self {
        joined(sums, |sums| {
            let mut grads = GradientsAccumulator::new();
            let mut parts = Vec::new();
            for sum in sums {
                grads.accumulate(adapted, sum.grads.to_device(device, adapted));
                parts.extend(sum.parts.into_iter().map(|part| part.on(device)));
            }
            Self {
                parts,
                grads: grads.grads(),
            }
        })
    }
}

/// Mean loss of a step and its gradients, by the devices of `team`, on the first of which `adapted` is.
pub fn train_step<M, O>(
    objective: &O,
    reduction: Reduction,
    adapted: &Adapted<M>,
    step: Step<O::Batch>,
    team: &Team,
) -> TrainOutput<StepOutput>
where
    M: Module + ModuleDisplay + Sync + 'static,
    O: Objective<M>,
{
    let terms_of = |shares: &Vec<O::Batch>| shares.iter().map(|batch| objective.terms(batch)).sum::<usize>();
    let of_batches: Vec<usize> = step.batches.iter().map(terms_of).collect();
    let terms: usize = of_batches.iter().sum();
    let items = step.batches.iter().flatten().map(|batch| objective.items(batch)).sum();
    let batches = step.batches.len();
    let scale = reduction.loss_scale.as_ref().map_or(1.0, LossScale::factor);
    let mut seeds = (0..).map(|number| step.seed.wrapping_add(number));
    let of_batch = |(shares, terms_of_it): (Vec<O::Batch>, usize)| {
        let denominator = match reduction.mean_of_batch_means {
            true => (terms_of_it * batches) as f64,
            false => terms as f64,
        } / scale;
        let shares = shares.into_iter().zip(seeds.by_ref());
        let share = |(batch, seed)| Share {
            batch,
            denominator,
            seed,
        };
        shares.map(share).collect()
    };
    let shares: Vec<Vec<Share<O::Batch>>> = step.batches.into_iter().zip(of_batches).map(of_batch).collect();

    let device = team.first();
    let values = team.is_spread().then(|| Values::of(adapted));
    let sums = team.run(
        shares,
        |shares| objective.within(device, || Sum::of(objective, adapted, shares)),
        || {
            let (objective, adapted) = (objective.clone(), adapted.clone());
            let (values, home) = (values.clone(), device.clone());
            move |shares, device: &Device, kept: &mut Kept| {
                let sum = |adapted: &Adapted<M>| objective.within(device, || Sum::of(&objective, adapted, shares));
                match values.filter(|_| is_remote(device) || is_remote(&home)) {
                    Some(values) => {
                        let there = values.in_place(copy(&adapted, &home, device, kept), device);
                        sum(&there).home(&there, &adapted, &home.inner())
                    }
                    None => sum(&adapted.fork(device)),
                }
            }
        },
    );
    // Outside of `within`: another device may need the threads that it takes.
    let output = objective.within(device, || {
        let Sum { parts, mut grads } = Sum::joined(sums, adapted, &device.clone().inner());
        let weight = if O::WEIGHS { terms } else { 1 };
        let mut item = StepOutput::new(parts, weight, items);
        if scale != 1.0 {
            // A power of two: exact.
            let factor = 1.0 / scale;
            item.loss = item.loss.without_autodiff().mul_scalar(factor);
            grads = scaled(adapted, grads, item.loss.full_like(factor));
        }
        let grads = with_penalty(adapted, grads);
        let total = reduction.loss_scale.as_ref().and_then(|_| norm(adapted, &grads));
        let may_be_bad = match &reduction.loss_scale {
            Some(loss_scale) if is_finite(total.as_ref()) => {
                loss_scale.stepped();
                false
            }
            // A loss that is not finite either has another cause.
            Some(loss_scale) => {
                item.skipped = item.loss().is_finite() && loss_scale.overflowed();
                true
            }
            None => reduction.checks_gradients,
        };
        if item.skipped {
            let grads = GradientsParams::new();
            return TrainOutput { grads, item };
        }
        if may_be_bad {
            item.bad_gradient = first_not_finite(adapted, Some(&grads));
        }
        let grads = clipped(adapted, grads, total, reduction.max_grad_norm);
        TrainOutput { grads, item }
    });
    objective.stepped();
    output
}

/// `grads` plus the gradients of AdaLoRA's penalty. The reported loss remains that of the task.
fn with_penalty<M: Module + ModuleDisplay>(adapted: &Adapted<M>, grads: GradientsParams) -> GradientsParams {
    let config = adapted.config().settings::<AdaLoraConfig>();
    let Some(penalty) = config.and_then(|config| config.penalty(adapted)) else {
        return grads;
    };
    let mut sum = GradientsAccumulator::new();
    sum.accumulate(adapted, grads);
    sum.accumulate(adapted, GradientsParams::from_grads(penalty.backward(), adapted));
    sum.grads()
}

/// The loss of a step, without training.
pub fn valid_step<M, O>(objective: &O, adapted: &Adapted<M>, step: Step<O::Batch>) -> StepOutput
where
    M: Module + ModuleDisplay,
    O: Objective<M>,
{
    let batches: Vec<O::Batch> = step.batches.into_iter().flatten().collect();
    let terms: usize = batches.iter().map(|batch| objective.terms(batch)).sum();
    let items = batches.iter().map(|batch| objective.items(batch)).sum();
    let of_batch = |batch| objective.evaluate(adapted, batch, terms as f64);
    let parts = batches.into_iter().map(of_batch).collect();
    StepOutput::new(parts, if O::WEIGHS { terms } else { 1 }, items)
}

impl ItemLazy for StepOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        self.loss.device().flush()?;
        Ok(Self {
            loss: self.loss.without_autodiff(),
            predictions: self
                .predictions
                .map(|(logits, labels)| (logits.without_autodiff(), labels.without_autodiff())),
            numbers: self
                .numbers
                .map(|(predicted, right)| (predicted.without_autodiff(), right.without_autodiff())),
            ..self
        })
    }
}

impl Adaptor<LossInput> for StepOutput {
    fn adapt(&self) -> LossInput {
        // The metric weights a loss by the length of its tensor.
        match self.weight {
            1 => LossInput::new(self.loss.clone()),
            weight => LossInput::new(self.loss.clone().expand([weight.max(1)])),
        }
    }
}

impl Adaptor<AccuracyInput> for StepOutput {
    fn adapt(&self) -> AccuracyInput {
        let (logits, labels) = self.predictions.clone().expect("accuracy is a metric of classifiers");
        ClassificationOutput::new(self.loss.clone(), logits, labels).adapt()
    }
}

impl Adaptor<ScoreInput> for StepOutput {
    fn adapt(&self) -> ScoreInput {
        if let Some((predicted, right)) = self.numbers.clone() {
            return ScoreInput { predicted, right };
        }
        let (logits, labels) = self.predictions.clone().expect("scores are metrics of classifiers");
        let count = labels.dims()[0];
        ScoreInput {
            predicted: logits.argmax(1).reshape([count]).float(),
            right: labels.float(),
        }
    }
}

impl Adaptor<ItemsInput> for StepOutput {
    fn adapt(&self) -> ItemsInput {
        ItemsInput(self.items)
    }
}
