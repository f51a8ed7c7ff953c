//! Training with burn-train's `Learner` (feature `train`), with the steps of the backbone or with a loss function.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, ParamGroup,
};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Device, Tensor};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};

use crate::adapted::Adapted;

/// An adapted model with training and validation steps, made by [`Adapted::with_loss`] or [`Adapted::with_steps`] for a
/// backbone that has no steps of its own. (A backbone that implements them needs neither:
/// `Learner::new(adapted, optimizer, schedule)`.) Its record is the trained part; gradient accumulation and all execution
/// strategies of burn-train work as for any model.
///
/// ```
/// use burn::nn::loss::{MseLoss, Reduction};
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn::train::{RegressionOutput, TrainStep};
/// use wegeft::AdapterConfig;
///
/// #[derive(burn::module::Module, Debug)]
/// struct Model { proj: Linear }
///
/// fn loss(model: &Model, (x, y): (Tensor<2>, Tensor<2>)) -> (Tensor<1>, RegressionOutput) {
///     let output = model.proj.forward(x);
///     let loss = MseLoss::new().forward(output.clone(), y.clone(), Reduction::Mean);
///     (loss.clone(), RegressionOutput::new(loss, output, y))
/// }
///
/// let device = Device::flex().autodiff();
/// let model = Model { proj: LinearConfig::new(8, 4).init(&device) };
/// let learner_model = AdapterConfig::wegeft(2).with_target_modules(["proj"]).init(model)?.with_loss(loss);
/// // Learner::new(learner_model, optimizer, schedule), or one step by hand:
/// let step = learner_model.step((Tensor::ones([3, 8], &device), Tensor::ones([3, 4], &device)));
/// assert_eq!(step.grads.len(), 2); // phi and psi
/// # Ok::<(), wegeft::AdapterError>(())
/// ```
pub struct Trainee<M: Module + ModuleDisplay, B, T, V> {
    /// The adapted model.
    pub adapted: Adapted<M>,
    train: T,
    valid: V,
    around: Option<Arc<dyn Around<M>>>,
    // A function type, so that the trainee is Send even if the batch is not.
    batch: PhantomData<fn(B)>,
}

/// The step of the bound backbone: gradients of its loss land on the bank and on `modules_to_save`.
impl<M: TrainStep + Module + ModuleDisplay> TrainStep for Adapted<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, batch: Self::Input) -> TrainOutput<Self::Output> {
        self.bind().step(batch)
    }
}

/// The step of the backbone, bound.
impl<M: InferenceStep + Module + ModuleDisplay> InferenceStep for Adapted<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, batch: Self::Input) -> Self::Output {
        self.bind().step(batch)
    }
}

impl<M: Module + ModuleDisplay> Adapted<M> {
    /// This model with `loss`, ready for a `Learner`: a function or closure from the bound model and a batch to the loss,
    /// `[1]`, and an output for the metrics (`ClassificationOutput`, …).
    #[allow(clippy::type_complexity)] // closures have no names of their own
    pub fn with_loss<B, O, F>(
        self,
        loss: F,
    ) -> Trainee<
        M,
        B,
        impl Fn(&Self, B) -> TrainOutput<O> + Clone + Send + use<M, B, O, F>,
        impl Fn(&Self, B) -> O + Clone + Send + use<M, B, O, F>,
    >
    where
        F: Fn(&M, B) -> (Tensor<1>, O) + Clone + Send,
    {
        let of_valid = loss.clone();
        let train = move |adapted: &Self, batch: B| {
            let (loss, output) = loss(&adapted.bind(), batch);
            TrainOutput::new(adapted, loss.backward(), output)
        };
        self.with_steps(train, move |adapted: &Self, batch: B| {
            of_valid(&adapted.bind(), batch).1
        })
    }

    /// This model with custom steps: `train` returns the gradients of a batch, computed in any way, and an output for the
    /// metrics; `valid` returns the output only.
    pub fn with_steps<B, O, T, V>(self, train: T, valid: V) -> Trainee<M, B, T, V>
    where
        T: Fn(&Self, B) -> TrainOutput<O> + Clone + Send,
        V: Fn(&Self, B) -> O + Clone + Send,
    {
        Trainee {
            adapted: self,
            train,
            valid,
            around: None,
            batch: PhantomData,
        }
    }
}

/// Callbacks around each optimizer step, as AdaLoRA's [`RankAllocator`](crate::RankAllocator) needs them.
/// They are not called when one learner trains on several devices.
pub trait Around<M: Module + ModuleDisplay>: Send + Sync {
    /// Called before the step, with the model and the gradients.
    fn before(&self, adapted: &Adapted<M>, gradients: &GradientsParams);

    /// Called after the step; returns the model to go on with.
    fn after(&self, adapted: Adapted<M>) -> Adapted<M>;
}

impl<M: Module + ModuleDisplay, B, T, V> Trainee<M, B, T, V> {
    /// Calls `around` before and after each step of the optimizer.
    pub fn with_around(self, around: Arc<dyn Around<M>>) -> Self {
        Self {
            around: Some(around),
            ..self
        }
    }
}

impl<M, B, O, T, V> TrainStep for Trainee<M, B, T, V>
where
    M: Module + ModuleDisplay,
    B: Send + 'static,
    O: ItemLazy + 'static,
    T: Fn(&Adapted<M>, B) -> TrainOutput<O> + Clone + Send,
    V: Clone + Send,
{
    type Input = B;
    type Output = O;

    fn step(&self, batch: B) -> TrainOutput<O> {
        (self.train)(&self.adapted, batch)
    }

    fn optimize(self, optimizer: &mut ModuleOptimizer, rates: ModuleLearningRate, gradients: GradientsParams) -> Self {
        let Some(around) = self.around.clone() else {
            return optimizer.step(rates, self, gradients);
        };
        around.before(&self.adapted, &gradients);
        let stepped = optimizer.step(rates, self, gradients);
        stepped.map_adapted(|adapted| around.after(adapted))
    }
}

impl<M, B, O, T, V> InferenceStep for Trainee<M, B, T, V>
where
    M: Module + ModuleDisplay,
    B: Send + 'static,
    O: ItemLazy + 'static,
    T: Clone + Send,
    V: Fn(&Adapted<M>, B) -> O + Clone + Send,
{
    type Input = B;
    type Output = O;

    fn step(&self, batch: B) -> O {
        (self.valid)(&self.adapted, batch)
    }
}

impl<M: Module + ModuleDisplay, B, T, V> Trainee<M, B, T, V> {
    fn map_adapted(self, change: impl FnOnce(Adapted<M>) -> Adapted<M>) -> Self {
        Self {
            adapted: change(self.adapted),
            ..self
        }
    }
}

// Delegates to the adapted model, which decides what is visited and what a record holds.
impl<M: Module + ModuleDisplay, B, T: Clone + Send, V: Clone + Send> Module for Trainee<M, B, T, V> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.adapted.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.map_adapted(|adapted| adapted.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_adapted(|adapted| adapted.to_device(device))
    }

    fn train(self) -> Self {
        self.map_adapted(Adapted::train)
    }

    fn valid(&self) -> Self {
        self.clone().map_adapted(|adapted| adapted.valid())
    }

    fn materialize(self) -> Self {
        self.map_adapted(Adapted::materialize)
    }

    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        self.adapted.visit(visitor);
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        self.map_adapted(|adapted| adapted.map(mapper))
    }

    fn into_record(self) -> ModuleRecord {
        self.adapted.into_record()
    }

    fn into_record_group(self, group: ParamGroup) -> ModuleRecord {
        self.adapted.into_record_group(group)
    }

    fn try_load_record(self, record: ModuleRecord) -> Result<Self, RecordError> {
        let adapted = self.adapted.try_load_record(record)?;
        Ok(Self { adapted, ..self })
    }
}

// Not derived: a derive would require Clone of the batch, and Debug of closures.
impl<M: Module + ModuleDisplay, B, T: Clone, V: Clone> Clone for Trainee<M, B, T, V> {
    fn clone(&self) -> Self {
        Self {
            adapted: self.adapted.clone(),
            train: self.train.clone(),
            valid: self.valid.clone(),
            around: self.around.clone(),
            batch: PhantomData,
        }
    }
}

impl<M: Module + ModuleDisplay, B, T, V> fmt::Debug for Trainee<M, B, T, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainee")
            .field("adapted", &self.adapted)
            .finish_non_exhaustive()
    }
}

/// The adapter's summary, which burn-train prints before training.
impl<M: Module + ModuleDisplay, B, T, V> fmt::Display for Trainee<M, B, T, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.adapted.fmt(f)
    }
}

impl<M: Module + ModuleDisplay, B, T: Clone + Send, V: Clone + Send> ModuleDisplayDefault for Trainee<M, B, T, V> {
    fn content(&self, content: Content) -> Option<Content> {
        self.adapted.content(content)
    }
}

impl<M: Module + ModuleDisplay, B, T: Clone + Send, V: Clone + Send> ModuleDisplay for Trainee<M, B, T, V> {}
