//! A look at a model between two steps of its training.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::{Module, ModuleDisplay};
use burn::optim::GradientsParams;
use burn::tensor::Device;
use wegeft::Adapted;

use crate::train::step::{Objective, Part};

/// What looks at the model, and after how many steps it is.
pub type Look<M> = Arc<dyn Fn(&Adapted<M>, usize) + Send + Sync>;

/// An objective whose model is looked at after every so many steps of the training, before the next one.
#[derive(Clone)]
pub struct Watched<M: Module + ModuleDisplay, O> {
    objective: O,
    look: Option<Look<M>>,
    every: usize,
    /// Steps so far.
    taken: Arc<AtomicUsize>,
    /// Steps when it was last looked at.
    looked: Arc<AtomicUsize>,
}

impl<M: Module + ModuleDisplay, O> Watched<M, O> {
    /// `objective`, its model looked at every `every` steps, if at all.
    pub fn new(objective: O, every: usize, look: Option<Look<M>>) -> Self {
        Self {
            objective,
            look,
            every: every.max(1),
            taken: Arc::default(),
            looked: Arc::default(),
        }
    }
}

impl<M: Module + ModuleDisplay + 'static, O: Objective<M>> Objective<M> for Watched<M, O> {
    type Batch = O::Batch;
    const WEIGHS: bool = O::WEIGHS;

    fn begin(&self, steps_done: usize) {
        self.taken.store(steps_done, Ordering::Relaxed);
        self.objective.begin(steps_done);
    }

    fn terms(&self, batch: &O::Batch) -> usize {
        self.objective.terms(batch)
    }

    fn items(&self, batch: &O::Batch) -> usize {
        self.objective.items(batch)
    }

    fn loss_and_grads(
        &self,
        adapted: &Adapted<M>,
        batch: O::Batch,
        denominator: f64,
        seed: u64,
    ) -> (Part, GradientsParams) {
        let taken = self.taken.load(Ordering::Relaxed);
        if let Some(look) = &self.look
            && taken.is_multiple_of(self.every)
            && self.looked.swap(taken, Ordering::Relaxed) != taken
        {
            look(adapted, taken);
        }
        self.objective.loss_and_grads(adapted, batch, denominator, seed)
    }

    fn evaluate(&self, adapted: &Adapted<M>, batch: O::Batch, denominator: f64) -> Part {
        self.objective.evaluate(adapted, batch, denominator)
    }

    fn within<R: Send>(&self, device: &Device, work: impl FnOnce() -> R + Send) -> R {
        self.objective.within(device, work)
    }

    fn stepped(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.objective.stepped();
    }
}
