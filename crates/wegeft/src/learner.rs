//! Training with burn-train's `Learner`: an adapted model and a loss, nothing else to write (feature `train`).

use std::fmt;
use std::marker::PhantomData;

use burn::module::{Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Device, Tensor};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};

use crate::adapted::Adapted;

/// An adapted model and its loss: what burn-train's `Learner` trains. `F` is a function or closure from the bound
/// model and a batch to the loss, `[1]`, and an output for the metrics (`ClassificationOutput`, …). Its record is
/// the trained part; gradient accumulation and every execution strategy of burn-train work as for a plain model.
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
pub struct Trainee<M: Module + ModuleDisplay, B, F> {
    /// The adapted model.
    pub adapted: Adapted<M>,
    loss: F,
    // A function of the batch, so that the trainee is Send whatever the batch is.
    batch: PhantomData<fn(B)>,
}

impl<M: Module + ModuleDisplay> Adapted<M> {
    /// This model with `loss`, ready for a `Learner`.
    pub fn with_loss<B, O, F>(self, loss: F) -> Trainee<M, B, F>
    where
        F: Fn(&M, B) -> (Tensor<1>, O) + Clone + Send,
    {
        Trainee {
            adapted: self,
            loss,
            batch: PhantomData,
        }
    }
}

impl<M, B, O, F> TrainStep for Trainee<M, B, F>
where
    M: Module + ModuleDisplay,
    B: Send + 'static,
    O: ItemLazy + 'static,
    F: Fn(&M, B) -> (Tensor<1>, O) + Clone + Send,
{
    type Input = B;
    type Output = O;

    fn step(&self, batch: B) -> TrainOutput<O> {
        let (loss, output) = (self.loss)(&self.adapted.bind(), batch);
        TrainOutput::new(&self.adapted, loss.backward(), output)
    }
}

impl<M, B, O, F> InferenceStep for Trainee<M, B, F>
where
    M: Module + ModuleDisplay,
    B: Send + 'static,
    O: ItemLazy + 'static,
    F: Fn(&M, B) -> (Tensor<1>, O) + Clone + Send,
{
    type Input = B;
    type Output = O;

    fn step(&self, batch: B) -> O {
        (self.loss)(&self.adapted.bind(), batch).1
    }
}

impl<M: Module + ModuleDisplay, B, F> Trainee<M, B, F> {
    fn map_adapted(self, change: impl FnOnce(Adapted<M>) -> Adapted<M>) -> Self {
        Self {
            adapted: change(self.adapted),
            loss: self.loss,
            batch: PhantomData,
        }
    }
}

// The adapted model decides what a record holds and what is visited: every method goes straight to it.
impl<M: Module + ModuleDisplay, B, F: Clone + Send> Module for Trainee<M, B, F> {
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

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.adapted.visit(visitor);
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        self.map_adapted(|adapted| adapted.map(mapper))
    }

    fn into_record(self) -> ModuleRecord {
        self.adapted.into_record()
    }

    fn try_load_record(self, record: ModuleRecord) -> Result<Self, RecordError> {
        let adapted = self.adapted.try_load_record(record)?;
        Ok(Self {
            adapted,
            loss: self.loss,
            batch: PhantomData,
        })
    }
}

// Written out: a derive would ask the same of the batch, and Debug of a closure.
impl<M: Module + ModuleDisplay, B, F: Clone> Clone for Trainee<M, B, F> {
    fn clone(&self) -> Self {
        Self {
            adapted: self.adapted.clone(),
            loss: self.loss.clone(),
            batch: PhantomData,
        }
    }
}

impl<M: Module + ModuleDisplay, B, F> fmt::Debug for Trainee<M, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainee")
            .field("adapted", &self.adapted)
            .finish_non_exhaustive()
    }
}

/// What burn-train prints before a training: the adapter's summary.
impl<M: Module + ModuleDisplay, B, F> fmt::Display for Trainee<M, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.adapted.summary().fmt(f)
    }
}

impl<M: Module + ModuleDisplay, B, F: Clone + Send> ModuleDisplayDefault for Trainee<M, B, F> {
    fn content(&self, content: Content) -> Option<Content> {
        self.adapted.content(content)
    }
}

impl<M: Module + ModuleDisplay, B, F: Clone + Send> ModuleDisplay for Trainee<M, B, F> {}
