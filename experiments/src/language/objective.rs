//! What the learner trains an adapted decoder on: the loss of the response only.

use backbones::lm::Decoder;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{DType, ExecutionError, Tensor};
use burn::train::metric::{Adaptor, LossInput};
use burn::train::{ItemLazy, TrainOutput};
use kernels::{LmHead, linear_cross_entropy, linear_nll};
use wegeft::{Adapted, FullConfig, Trainee};

use crate::language::batches::{Batch, Step};
use crate::language::checkpointing;
use crate::language::throughput::TokensInput;

/// How a step makes its gradients.
#[derive(Debug, Clone, Copy)]
pub struct Objective {
    /// Gradients are scaled down to this norm over all of them, if it is greater; not at 0.
    pub max_grad_norm: f64,
    /// Keep only the layers' inputs for the backward pass and compute each layer again.
    pub checkpointing: bool,
}

/// What the metrics read of a step.
pub struct StepOutput {
    loss: Tensor<1>,
    learned: usize,
    tokens: usize,
}

impl StepOutput {
    /// The loss as a number; waits for the device.
    pub fn loss(&self) -> f64 {
        self.loss.clone().into_scalar()
    }
}

impl Objective {
    /// The adapted decoder with its steps, ready for a `Learner`.
    #[allow(clippy::type_complexity)] // closures have no names of their own
    pub fn trainee(
        self,
        adapted: Adapted<Decoder>,
    ) -> Trainee<
        Decoder,
        Step,
        impl Fn(&Adapted<Decoder>, Step) -> TrainOutput<StepOutput> + Clone + Send,
        impl Fn(&Adapted<Decoder>, Step) -> StepOutput + Clone + Send,
    > {
        let train = move |adapted: &Adapted<Decoder>, step: Step| {
            let device = step.batches[0].ids.device();
            kernels::with_pool(&device, || self.gradients(adapted, &step))
        };
        adapted.with_steps(train, evaluate)
    }

    /// Loss of a batch (the sum over its learned tokens, divided by `denominator`) and its gradients.
    pub fn loss_and_grads(
        &self,
        adapted: &Adapted<Decoder>,
        batch: &Batch,
        denominator: f64,
        seed: u64,
    ) -> (Tensor<1>, GradientsParams) {
        if self.checkpointing {
            return checkpointing::loss_and_grads(adapted, batch, denominator, seed);
        }
        let bound = adapted.bind();
        let head = head(adapted, &bound);
        let hidden = response_rows(bound.hidden(batch.ids.clone(), &batch.layout, None), batch);
        let loss = linear_cross_entropy(hidden, &head, batch.targets.clone(), denominator);
        let grads = GradientsParams::from_grads(loss.backward(), adapted);
        (loss.inner(), grads)
    }

    fn gradients(&self, adapted: &Adapted<Decoder>, step: &Step) -> TrainOutput<StepOutput> {
        // A thousandth of a gradient is less than an f16 holds: there it is divided when it is summed, in f32.
        let divided_after = kernels::compute_dtype(&adapted.backbone().head_weight()) == DType::F16;
        let denominator = if divided_after { 1.0 } else { step.learned as f64 };
        self.gradients_over(adapted, step, denominator)
    }

    /// Mean loss of a step and its gradients, which are divided by `denominator` before they are taken and by the rest of
    /// the learned tokens' number after.
    fn gradients_over(&self, adapted: &Adapted<Decoder>, step: &Step, denominator: f64) -> TrainOutput<StepOutput> {
        let (learned, tokens) = (step.learned, step.tokens);
        let mut sum = GradientsAccumulator::new();
        let mut losses = Vec::with_capacity(step.batches.len());
        for (index, batch) in step.batches.iter().enumerate() {
            let seed = step.seed.wrapping_add(index as u64);
            let (loss, grads) = self.loss_and_grads(adapted, batch, denominator, seed);
            losses.push(loss);
            sum.accumulate(adapted, grads);
        }
        let (mut loss, mut grads) = (Tensor::cat(losses, 0).sum(), sum.grads());
        let rest = denominator / learned as f64;
        if rest != 1.0 {
            loss = loss.mul_scalar(rest);
            let factor = loss.full_like(rest);
            grads = scaled(adapted, grads, factor);
        }
        let grads = clipped(adapted, grads, self.max_grad_norm);
        let item = StepOutput { loss, learned, tokens };
        TrainOutput { grads, item }
    }
}

/// The loss of a step.
fn evaluate(adapted: &Adapted<Decoder>, step: Step) -> StepOutput {
    let (learned, tokens) = (step.learned, step.tokens);
    let bound = adapted.bind();
    let head = head(adapted, &bound);
    let losses: Vec<Tensor<1>> = step
        .batches
        .into_iter()
        .map(|batch| {
            let hidden = bound.hidden(batch.ids.clone(), &batch.layout, None);
            linear_nll(response_rows(hidden, &batch), &head, batch.targets).sum()
        })
        .collect();
    StepOutput {
        loss: Tensor::cat(losses, 0).sum().div_scalar(learned as f64),
        learned,
        tokens,
    }
}

/// The head of a bound model.
pub fn head(adapted: &Adapted<Decoder>, bound: &Decoder) -> LmHead {
    const HEADS: [&str; 3] = ["lm_head.weight", "embed_tokens.weight", "wte.weight"];
    let trained = adapted.config().settings::<FullConfig>().is_some()
        || adapted
            .saved_params()
            .iter()
            .any(|param| HEADS.iter().any(|head| param.path.ends_with(head)));
    LmHead {
        weight: bound.head_weight(),
        softcap: bound.config().final_softcap,
        trained,
    }
}

/// Of hidden states `[batch, tokens, d_model]` those that predict the learned tokens, `[n, d_model]`: all that the
/// head sees.
pub fn response_rows(hidden: Tensor<3>, batch: &Batch) -> Tensor<2> {
    let [rows, width, d_model] = hidden.dims();
    hidden
        .reshape([rows * width, d_model])
        .select(0, batch.positions.clone())
}

/// `grads` scaled so that the norm over all of them is at most `max_norm`, as PyTorch's `clip_grad_norm_` does. Burn's
/// own clipping looks at each tensor by itself.
pub fn clipped<M: Module>(module: &M, grads: GradientsParams, max_norm: f64) -> GradientsParams {
    if max_norm <= 0.0 {
        return grads;
    }
    let mut norm = Norm {
        grads,
        squares: Vec::new(),
    };
    module.visit(&mut norm);
    if norm.squares.is_empty() {
        return norm.grads;
    }
    // Stays on the device: no step waits for its value.
    let total = Tensor::cat(norm.squares, 0).sum().sqrt();
    let factor = total.add_scalar(1e-6).recip().mul_scalar(max_norm).clamp_max(1.0);
    scaled(module, norm.grads, factor)
}

/// `grads` times `factor`, a tensor of one value.
fn scaled<M: Module>(module: &M, grads: GradientsParams, factor: Tensor<1>) -> GradientsParams {
    let mut scale = Scale {
        from: grads,
        to: GradientsParams::new(),
        factor,
    };
    module.visit(&mut scale);
    scale.to
}

struct Norm {
    grads: GradientsParams,
    squares: Vec<Tensor<1>>,
}

impl ModuleVisitor for Norm {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.squares.push(grad.cast(DType::F32).square().sum());
        }
    }
}

struct Scale {
    from: GradientsParams,
    to: GradientsParams,
    factor: Tensor<1>,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.from.remove::<D>(param.id) {
            let factor = self.factor.clone().cast(grad.dtype()).unsqueeze::<D>();
            self.to.register(param.id, grad * factor);
        }
    }
}

impl ItemLazy for StepOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        self.loss.device().flush()?;
        Ok(Self {
            loss: self.loss.without_autodiff(),
            ..self
        })
    }
}

impl Adaptor<LossInput> for StepOutput {
    fn adapt(&self) -> LossInput {
        // The metric weighs a loss by the length of its tensor: here by its tokens.
        LossInput::new(self.loss.clone().expand([self.learned.max(1)]))
    }
}

impl Adaptor<TokensInput> for StepOutput {
    fn adapt(&self) -> TokensInput {
        TokensInput(self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use backbones::lm::{LoadOptions, load_lm};
    use burn::tensor::Device;
    use wegeft::AdapterConfig;

    use super::*;
    use crate::language::batches::{Sequence, make_step};
    use crate::language::model::shipped;

    #[test]
    fn divided_before_or_after_gradients_are_the_same() {
        let device = Device::flex().autodiff();
        let model = load_lm(&shipped(), &LoadOptions::default(), &device).unwrap().model;
        let adapter = AdapterConfig::lora(4).with_target_modules(["q_proj", "down_proj"]);
        let adapted = adapter.init(model).unwrap();
        let sequence = |from: u32, count: u32| Sequence {
            ids: (from..from + count).collect(),
            learned: (0..count).map(|place| place > 3).collect(),
            starts: Vec::new(),
        };
        let sequences = [sequence(5, 12), sequence(40, 9), sequence(70, 15)];
        let step = make_step(&sequences, &[vec![0, 1], vec![2]], 1, &Device::flex());
        let objective = Objective {
            max_grad_norm: 0.0,
            checkpointing: false,
        };
        let run = |denominator: f64| {
            let output = objective.gradients_over(&adapted, &step, denominator);
            let grads = wegeft::site::params(adapted.bank())
                .into_iter()
                .filter_map(|param| output.grads.get::<2>(param.id))
                .map(|grad| grad.into_data().try_to_vec::<f32>().unwrap())
                .collect::<Vec<_>>();
            (output.item.loss(), grads.concat())
        };
        let (before, after) = (run(step.learned as f64), run(1.0));
        assert!(
            (before.0 - after.0).abs() < 1e-5 && before.0 > 1.0,
            "{} {}",
            before.0,
            after.0
        );
        let norm = |grads: &[f32]| grads.iter().map(|g| g * g).sum::<f32>().sqrt();
        let difference: Vec<f32> = before.1.iter().zip(&after.1).map(|(a, b)| a - b).collect();
        assert!(norm(&difference) < 1e-5 * norm(&before.1) && norm(&before.1) > 0.0);
    }
}
