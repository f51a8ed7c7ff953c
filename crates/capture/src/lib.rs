//! A computation that a device records once and then repeats at the cost of one launch: Burn's graph capture behind a safe
//! interface. CUDA and ROCm repeat it as a graph of the driver, wgpu as a list of dispatches.

use std::cell::RefCell;
use std::rc::Rc;

use burn::tensor::{Device, Graph, capture};

/// A recorded step and the state that it changes.
///
/// A repetition runs what the device did, not what the program would do: it reads the buffers that the step read while it
/// was recorded and writes those that it wrote. So
///
/// - the step must change its state in place, by operations such as `slice_assign` of tensors that nothing else holds;
/// - it must move nothing between host and device, or nothing is recorded;
/// - whatever depends on the number of the step must be a tensor of the state.
///
/// A step that breaks these rules gives wrong numbers, so compare some repetitions with the step itself.
pub struct Recording<S> {
    graph: Graph<(), Box<dyn FnMut()>>,
    state: Rc<RefCell<Option<S>>>,
}

/// The state is away only while the step runs.
const AWAY: &str = "a step that panicked has lost the state";

impl<S: 'static> Recording<S> {
    /// Runs `step` a few times, so that the device has tuned it and has its memory, then records it. The state is that after
    /// those runs; on a device that records, the recording itself computes nothing.
    pub fn new(device: &Device, state: S, mut step: impl FnMut(S) -> S + 'static) -> Self {
        let state = Rc::new(RefCell::new(Some(state)));
        let own = Rc::clone(&state);
        let run: Box<dyn FnMut()> = Box::new(move || {
            let before = own.take().expect(AWAY);
            own.replace(Some(step(before)));
        });
        Self {
            graph: capture(device, run),
            state,
        }
    }

    /// False on a device that does not record, or could not record this step: then a repetition runs the step, and after a
    /// recording that failed midway the tensors of the state may not be readable.
    pub fn is_recorded(&self) -> bool {
        self.graph.is_hardware()
    }

    /// Reads the state.
    ///
    /// # Panics
    /// A step panicked before.
    pub fn read<R>(&self, read: impl FnOnce(&S) -> R) -> R {
        read(self.state.borrow().as_ref().expect(AWAY))
    }

    /// Changes the state between repetitions, in place, as the step does.
    ///
    /// # Panics
    /// A step panicked before.
    pub fn change(&mut self, change: impl FnOnce(S) -> S) {
        let before = self.state.take().expect(AWAY);
        self.state.replace(Some(change(before)));
    }

    /// The state at the end.
    ///
    /// # Panics
    /// A step panicked before.
    pub fn end(self) -> S {
        self.state.take().expect(AWAY)
    }

    /// Runs the recorded step once more.
    #[allow(unsafe_code)]
    pub fn repeat(&mut self) {
        // SAFETY: the three things that the caller owes.
        // Liveness: the step and the state own every tensor that was read or written, and live as long as `self`. Should one
        // of them be replaced, its memory is still not used for anything else: the graph holds every page that the recording
        // touched (`_guards` in cubecl-server's command/capture.rs and in cubecl-wgpu's compute/server.rs, 0.11.3).
        // No concurrent use: tensors of the state are changed by this thread alone (`Rc` keeps `self` on it); others, such as
        // a model's weights, are only read, by other threads as well, since Burn changes no tensor in place that has two
        // owners.
        // Same stream: Burn has one per thread, and `self` stays on the thread that recorded.
        unsafe {
            self.graph.replay();
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Int, Tensor};

    use super::*;

    #[test]
    fn a_device_that_records_nothing_runs_the_step_again() {
        let device = Device::flex();
        let start = Tensor::<1, Int>::zeros([1], &device);
        let mut recording = Recording::new(&device, start, |count| count.add_scalar(1));
        assert!(!recording.is_recorded());
        recording.change(|count| count.mul_scalar(0));
        for _ in 0..5 {
            recording.repeat();
        }
        assert_eq!(recording.read(|count| count.clone().into_scalar::<i64>()), 5);
        assert_eq!(recording.end().into_scalar::<i64>(), 5);
    }
}
