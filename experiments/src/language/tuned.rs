//! What the learner trains: an adapted decoder with the loss of the response only.

use backbones::lm::Decoder;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{DType, ExecutionError, Tensor};
use burn::train::metric::{Adaptor, LossInput};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use kernels::{LmHead, linear_cross_entropy, linear_nll};
use wegeft::{Adapted, Method};

use crate::language::batches::{Batch, Step};
use crate::language::checkpointing;
use crate::language::throughput::TokensInput;

/// An adapted decoder.
#[derive(Debug, Clone)]
pub struct Tuned {
    /// The decoder with its bank.
    pub adapted: Adapted<Decoder>,
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

impl Tuned {
    /// Loss of a batch (the sum over its learned tokens, divided by `learned`) and its gradients.
    fn loss_and_grads(&self, batch: &Batch, learned: usize, seed: u64) -> (Tensor<1>, GradientsParams) {
        if self.checkpointing {
            return checkpointing::loss_and_grads(&self.adapted, batch, learned, seed);
        }
        let bound = self.adapted.bind();
        let head = head(&self.adapted, &bound);
        let hidden = response_rows(bound.hidden(batch.ids.clone(), &batch.layout, None), batch);
        let loss = linear_cross_entropy(hidden, &head, batch.targets.clone(), learned as f64);
        let grads = GradientsParams::from_grads(loss.backward(), self);
        (loss.inner(), grads)
    }
}

/// The head of a bound model.
pub fn head(adapted: &Adapted<Decoder>, bound: &Decoder) -> LmHead {
    const HEADS: [&str; 3] = ["lm_head.weight", "embed_tokens.weight", "wte.weight"];
    let trained = adapted.config().method == Method::Full
        || adapted
            .saved_params()
            .iter()
            .any(|param| HEADS.iter().any(|head| param.path.ends_with(head)));
    LmHead {
        weight: bound.head_weight(),
        soft_cap: bound.config().final_softcap,
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

impl TrainStep for Tuned {
    type Input = Step;
    type Output = StepOutput;

    fn step(&self, step: Step) -> TrainOutput<StepOutput> {
        kernels::in_pool(|| self.gradients(&step))
    }
}

impl Tuned {
    fn gradients(&self, step: &Step) -> TrainOutput<StepOutput> {
        let (learned, tokens) = (step.learned, step.tokens);
        let mut sum = GradientsAccumulator::new();
        let mut losses = Vec::with_capacity(step.batches.len());
        for (index, batch) in step.batches.iter().enumerate() {
            let (loss, grads) = self.loss_and_grads(batch, learned, step.seed.wrapping_add(index as u64));
            losses.push(loss);
            sum.accumulate(self, grads);
        }
        let grads = clipped(self, sum.grads(), self.max_grad_norm);
        let item = StepOutput {
            loss: Tensor::cat(losses, 0).sum(),
            learned,
            tokens,
        };
        TrainOutput { grads, item }
    }
}

impl InferenceStep for Tuned {
    type Input = Step;
    type Output = StepOutput;

    fn step(&self, step: Step) -> StepOutput {
        let (learned, tokens) = (step.learned, step.tokens);
        let bound = self.adapted.bind();
        let head = head(&self.adapted, &bound);
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
    let mut scale = Scale {
        from: norm.grads,
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

// The adapted model decides what a record holds, so every method goes straight to it.
impl Module for Tuned {
    fn collect_devices(&self, devices: burn::module::Devices) -> burn::module::Devices {
        self.adapted.collect_devices(devices)
    }
    fn fork(self, device: &burn::tensor::Device) -> Self {
        self.with(|adapted| adapted.fork(device))
    }
    fn to_device(self, device: &burn::tensor::Device) -> Self {
        self.with(|adapted| adapted.to_device(device))
    }
    fn train(self) -> Self {
        self.with(Module::train)
    }
    fn valid(&self) -> Self {
        self.clone().with(|adapted| adapted.valid())
    }
    fn materialize(self) -> Self {
        self.with(Module::materialize)
    }
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.adapted.visit(visitor);
    }
    fn map<M: burn::module::ModuleMapper>(self, mapper: &mut M) -> Self {
        self.with(|adapted| adapted.map(mapper))
    }
    fn into_record(self) -> burn::store::ModuleRecord {
        self.adapted.into_record()
    }
    fn try_load_record(self, record: burn::store::ModuleRecord) -> Result<Self, burn::store::RecordError> {
        let adapted = self.adapted.try_load_record(record)?;
        Ok(Self { adapted, ..self })
    }
}

impl Tuned {
    fn with(self, change: impl FnOnce(Adapted<Decoder>) -> Adapted<Decoder>) -> Self {
        Self {
            adapted: change(self.adapted),
            ..self
        }
    }
}

impl burn::module::ModuleDisplayDefault for Tuned {
    fn content(&self, content: burn::module::Content) -> Option<burn::module::Content> {
        self.adapted.content(content)
    }
}

impl burn::module::ModuleDisplay for Tuned {}

// burn-train shows the learner's model in its summary.
impl std::fmt::Display for Tuned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.adapted.summary().fmt(f)
    }
}
