//! Numerical problems: a loss that is not a number, with the tensor that caused it, and factors that get no gradient.
//!
//! On devices that compute synchronously (flex, ndarray), the loss and the gradients are read within the step, so NaN and
//! infinity never reach the factors; on others, the metrics read the loss while the next step is running, and the factors
//! are looked at when training ends.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{Module, ModuleDisplay};
use burn::optim::GradientsParams;
use burn::train::{Interrupter, TrainOutput};
use wegeft::Adapted;

use crate::cli::output::note;
use crate::train::metrics_file::NOT_A_NUMBER;
use crate::train::step::StepOutput;
use crate::train::tensors::{first_not_finite, silent};
use crate::train::watch::SharedWatch;

/// Number of steps after which every factor must have had a gradient. A factor behind a zero-initialized one gets its
/// first gradient in the step after the first update of the other, which a warm-up may delay by one step.
const FIRST: usize = 4;

/// Checks the steps of a training.
#[derive(Clone)]
pub struct Health {
    /// Stops the training.
    pub interrupter: Interrupter,
    /// Receives reports of problems.
    pub watch: SharedWatch,
    /// Name of the training in messages.
    pub label: String,
    /// True if the device computes synchronously.
    pub reads_losses: bool,
    /// True if nothing may be printed during the training.
    pub quiet: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Steps of the training so far, over all sessions.
    step: usize,
    /// Steps of this session so far.
    seen: usize,
    /// Tensors without a gradient in any step so far; `None` before the first step.
    silent: Option<BTreeSet<String>>,
}

impl Health {
    /// Initial state for a training in which `done` steps are done.
    pub fn new(interrupter: Interrupter, watch: SharedWatch, label: &str, done: usize) -> Self {
        let state = State {
            step: done,
            ..State::default()
        };
        Self {
            interrupter,
            watch,
            label: label.to_string(),
            reads_losses: false,
            quiet: false,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Checks a step of `adapted`; a step whose loss or gradient is not a number changes nothing.
    pub fn look<M: Module + ModuleDisplay>(
        &self,
        adapted: &Adapted<M>,
        mut step: TrainOutput<StepOutput>,
    ) -> TrainOutput<StepOutput> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.step += 1;
        if step.item.skipped {
            return step;
        }
        state.seen += 1;
        if state.seen <= FIRST {
            self.gradients(&mut state, adapted, &step.grads);
        }
        let bad_gradient = step.item.bad_gradient.take();
        // Whoever looked at the gradients has waited for the device.
        let reads_loss = self.reads_losses || bad_gradient.is_some();
        let bad_loss = reads_loss && !step.item.loss().is_finite();
        if bad_loss || bad_gradient.is_some() {
            let mut watch = self.watch.get();
            watch.bad_step.get_or_insert(state.step);
            watch.before_training |= state.step == 1;
            if bad_loss {
                watch.bad_tensor = first_not_finite(adapted, None)
                    .map(|name| format!("'{name}' has not been finite since the step before"))
                    .or(bad_gradient.map(|name| format!("nor is the gradient of '{name}'")));
            } else {
                watch.bad_gradient = bad_gradient;
            }
            drop(watch);
            self.interrupter.stop(Some(NOT_A_NUMBER));
            step.grads = GradientsParams::new();
        }
        step
    }

    /// Reports tensors that had no gradient in any of the first steps.
    fn gradients<M: Module + ModuleDisplay>(&self, state: &mut State, adapted: &Adapted<M>, grads: &GradientsParams) {
        let silent = match (state.seen, &state.silent) {
            (1, _) => silent(adapted, grads),
            (_, Some(before)) if !before.is_empty() => before.intersection(&silent(adapted, grads)).cloned().collect(),
            _ => return,
        };
        state.silent = Some(silent);
        if let Some(message) = self.silent(state).filter(|_| state.seen == FIRST) {
            self.tell(&message);
        }
    }

    /// What the first steps have shown, after a training that had fewer.
    pub fn finish(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (2..FIRST).contains(&state.seen).then(|| self.silent(&state)).flatten()
    }

    fn silent(&self, state: &State) -> Option<String> {
        let silent = state.silent.as_ref().filter(|silent| !silent.is_empty())?;
        Some(format!(
            "{}: no gradient reaches {} in the first {} steps: it is not trained",
            self.label,
            named(silent),
            state.seen
        ))
    }

    fn tell(&self, message: &str) {
        match self.quiet {
            true => self.watch.get().notes.push(message.to_string()),
            false => note(format_args!("  {message}")),
        }
    }
}

/// A few of `names`.
fn named(names: &BTreeSet<String>) -> String {
    const MOST: usize = 4;
    let shown: Vec<String> = names.iter().take(MOST).map(|name| format!("'{name}'")).collect();
    match names.len().saturating_sub(MOST) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::{Device, Tensor};
    use wegeft::AdapterConfig;

    use super::*;
    use crate::run::grid::Best;
    use crate::train::devices::Team;
    use crate::train::step::{Objective, Part, Reduction, train_step};
    use crate::train::stream::Step;

    #[test]
    fn a_few_names_stand_for_many() {
        let names = |count: usize| (0..count).map(|index| index.to_string()).collect();
        assert_eq!(named(&names(2)), "'0', '1'");
        assert_eq!(named(&names(6)), "'0', '1', '2', '3' and 2 more");
    }

    #[derive(Module, Debug)]
    struct Net {
        first: Linear,
        second: Linear,
    }

    /// A loss that is a number while the gradient of one layer is not: the square root of zero.
    #[derive(Clone)]
    struct Root;

    impl Objective<Net> for Root {
        type Batch = ();
        const WEIGHS: bool = false;

        fn terms(&self, _batch: &()) -> usize {
            1
        }

        fn items(&self, _batch: &()) -> usize {
            1
        }

        fn loss_and_grads(
            &self,
            adapted: &Adapted<Net>,
            _batch: (),
            _denominator: f64,
            _seed: u64,
        ) -> (Part, GradientsParams) {
            let part = self.evaluate(adapted, (), 1.0);
            let grads = GradientsParams::from_grads(part.loss.backward(), adapted);
            (Part::of_loss(part.loss.inner()), grads)
        }

        fn evaluate(&self, adapted: &Adapted<Net>, _batch: (), _denominator: f64) -> Part {
            let bound = adapted.bind();
            let x = Tensor::<2>::ones([2, 4], &bound.first.weight.device());
            let zero = bound.second.forward(x.clone()).sum().mul_scalar(0.0).sqrt();
            Part::of_loss(bound.first.forward(x).sum() + zero)
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_stops_the_training_though_the_loss_is() {
        let device = Device::flex().autodiff();
        let linear = || LinearConfig::new(4, 4).init(&device);
        let net = Net {
            first: linear(),
            second: linear(),
        };
        let adapted = AdapterConfig::full().init(net).unwrap();
        // Clipping spreads NaN over all gradients: the one to name is known before.
        let reduction = Reduction {
            max_grad_norm: 1.0,
            mean_of_batch_means: false,
            checks_gradients: true,
            loss_scale: None,
        };
        let step = Step {
            batches: vec![vec![()]],
            seed: 1,
        };
        let output = train_step(&Root, reduction, &adapted, step, &Team::new(&[device]));
        assert!(output.item.loss().is_finite());
        let watch = SharedWatch::new(Best::Lowest, None);
        let mut health = Health::new(Interrupter::new(), watch.clone(), "test", 4);
        health.reads_losses = true;
        let output = health.look(&adapted, output);
        assert!(health.interrupter.should_stop() && output.grads.is_empty());
        let watch = watch.get();
        assert_eq!(watch.bad_step, Some(5));
        let tensor = watch.bad_gradient.as_deref().unwrap();
        assert!(tensor.starts_with("second."), "{tensor}");
    }
}
