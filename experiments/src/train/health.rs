//! Numerical problems: a loss that is not a number, with the tensor that caused it, and factors that get no gradient.
//!
//! These checks do not slow down training: gradients are inspected only in the first steps, and tensors only once the
//! loss is not finite. On devices that compute synchronously (flex, ndarray), the loss is read within the step, so NaN
//! never reaches the factors; on others, the metrics read it while the next step is running.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{Module, ModuleDisplay, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::train::{Interrupter, TrainOutput};
use wegeft::Adapted;

use crate::cli::output::note;
use crate::train::metrics_file::NOT_A_NUMBER;
use crate::train::step::StepOutput;
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

    /// Checks a step of `adapted`; a step whose loss is not a number changes nothing.
    pub fn look<M: Module + ModuleDisplay>(
        &self,
        adapted: &Adapted<M>,
        mut step: TrainOutput<StepOutput>,
    ) -> TrainOutput<StepOutput> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.step += 1;
        state.seen += 1;
        if state.seen <= FIRST {
            self.gradients(&mut state, adapted, &step.grads);
        }
        if self.reads_losses && !step.item.loss().is_finite() {
            let tensor = first_not_finite(adapted, None)
                .map(|name| format!("'{name}' is not since the step before"))
                .or_else(|| {
                    first_not_finite(adapted, Some(&step.grads)).map(|name| format!("nor is the gradient of '{name}'"))
                });
            let mut watch = self.watch.get();
            watch.bad_step.get_or_insert(state.step);
            watch.bad_tensor = tensor;
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
        if state.seen == FIRST && !silent.is_empty() {
            self.tell(&format!(
                "{}: no gradient reaches {} in the first {FIRST} steps: it is not trained",
                self.label,
                named(&silent)
            ));
        }
        state.silent = Some(silent);
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

/// The first trained tensor with an element that is not finite or, if `grads` are given, with such an element in its
/// gradient.
pub fn first_not_finite<M: Module + ModuleDisplay>(
    adapted: &Adapted<M>,
    grads: Option<&GradientsParams>,
) -> Option<String> {
    let mut search = Search {
        path: Vec::new(),
        grads,
        found: Vec::new(),
        wanted: |greatest: Option<f64>| greatest.is_some_and(|greatest| !greatest.is_finite()),
    };
    adapted.visit(&mut search);
    search.found.first().map(|path| place(adapted, path))
}

/// The trained tensors whose gradient is missing or zero.
fn silent<M: Module + ModuleDisplay>(adapted: &Adapted<M>, grads: &GradientsParams) -> BTreeSet<String> {
    let mut search = Search {
        path: Vec::new(),
        grads: Some(grads),
        found: Vec::new(),
        wanted: |greatest: Option<f64>| greatest.is_none_or(|greatest| greatest == 0.0),
    };
    adapted.visit(&mut search);
    search.found.iter().map(|path| place(adapted, path)).collect()
}

/// Name of a trained tensor in messages: a factor is named by its site, or by the first site of its group.
fn place<M: Module + ModuleDisplay>(adapted: &Adapted<M>, path: &str) -> String {
    let factor = path.strip_prefix("factors.").and_then(|rest| {
        let (group, name) = rest.split_once('.')?;
        let group = adapted.bank().groups().get(group.parse::<usize>().ok()?)?;
        Some(format!("{}.{name}", group.site().path))
    });
    factor.unwrap_or_else(|| path.to_string())
}

/// Searches trained tensors by the largest absolute element of the tensor or of its gradient.
struct Search<'a, F> {
    path: Vec<String>,
    grads: Option<&'a GradientsParams>,
    found: Vec<String>,
    wanted: F,
}

impl<F: Fn(Option<f64>) -> bool> ModuleVisitor for Search<'_, F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.base();
        if !value.is_require_grad() || value.shape().num_elements() == 0 {
            return;
        }
        let tensor = match self.grads {
            Some(grads) => grads.get::<D>(param.id),
            None => Some(value.without_autodiff()),
        };
        // On some devices, the maximum over elements ignores NaN; the sum does not.
        let greatest = tensor.map(|tensor| tensor.abs().sum().into_scalar::<f64>());
        if (self.wanted)(greatest) {
            let path = self.path.join(".");
            let name = path
                .strip_prefix("bank.")
                .or(path.strip_prefix("model."))
                .unwrap_or(&path);
            self.found.push(name.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::{Device, Tensor};
    use wegeft::AdapterConfig;

    use super::*;

    #[derive(Module, Debug)]
    struct Net {
        used: Linear,
        unused: Linear,
    }

    fn adapted() -> Adapted<Net> {
        let device = Device::flex().autodiff();
        let linear = || LinearConfig::new(4, 4).init(&device);
        let net = Net {
            used: linear(),
            unused: linear(),
        };
        let config = AdapterConfig::lora(2).with_target_modules(["used", "unused"]);
        config.init(net).unwrap()
    }

    fn grads(adapted: &Adapted<Net>, scale: f32) -> GradientsParams {
        let device = Device::flex().autodiff();
        let x = Tensor::<2>::ones([2, 4], &device);
        let loss = adapted.bind().used.forward(x).mul_scalar(scale).sum();
        GradientsParams::from_grads(loss.backward(), adapted)
    }

    #[test]
    fn factors_that_no_gradient_reaches_are_named() {
        let adapted = adapted();
        let names = silent(&adapted, &grads(&adapted, 1.0));
        assert!(
            names.iter().filter(|name| name.contains("unused")).count() == 2,
            "{names:?}"
        );
        // B starts at zero: A's first gradient comes in the second step.
        assert!(
            names.iter().filter(|name| !name.contains("unused")).count() == 1,
            "{names:?}"
        );
        assert_eq!(named(&names).matches('\'').count(), 6);
    }

    #[test]
    fn tensors_that_are_not_finite_are_named() {
        let adapted = adapted();
        assert_eq!(first_not_finite(&adapted, None), None);
        assert_eq!(first_not_finite(&adapted, Some(&grads(&adapted, 1.0))), None);
        let name = first_not_finite(&adapted, Some(&grads(&adapted, f32::NAN)));
        assert!(name.as_ref().is_some_and(|name| name.contains("used")), "{name:?}");
    }
}
