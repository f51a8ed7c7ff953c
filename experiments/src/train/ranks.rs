//! AdaLoRA in training: the least important ranks are pruned after each step. The statistics for this choice are saved
//! with each checkpoint, so that a resumed run makes the same choices as an uninterrupted one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::{Module, ModuleDisplay};
use burn::optim::GradientsParams;
use wegeft::storage::{Tensors, read_tensors, write_tensors};
use wegeft::{AdaLoraConfig, Adapted, Around, RankAllocator};

/// The ranks of one training.
pub struct Ranks(Mutex<State>);

struct State {
    allocator: RankAllocator,
    /// Steps taken so far.
    step: usize,
    /// Statistics to be written with the checkpoints of some rounds.
    noted: BTreeMap<usize, Tensors>,
}

/// The file for a round.
pub fn path(folder: &Path, round: usize) -> PathBuf {
    folder.join(format!("ranks-{round}.safetensors"))
}

impl Ranks {
    /// The ranks of `adapted`, whose training starts after round `round` (0: from the beginning) and this many steps,
    /// with the checkpoints in `folder`; `None` for other methods.
    ///
    /// # Errors
    /// Settings that do not fit the training, a file that cannot be read.
    pub fn of<M: Module + ModuleDisplay>(
        adapted: &Adapted<M>,
        folder: &Path,
        (round, step): (usize, usize),
    ) -> Result<Option<Arc<Self>>, String> {
        let Some(config) = adapted.config().settings::<AdaLoraConfig>() else {
            return Ok(None);
        };
        let mut allocator = RankAllocator::new(config).map_err(|e| e.to_string())?;
        if round > 0 {
            let state = read_tensors(&path(folder, round));
            allocator = allocator.with_state(&state.map_err(|e| format!("{e}; remove its folder to start anew"))?);
        }
        let state = State {
            allocator,
            step,
            noted: BTreeMap::new(),
        };
        Ok(Some(Arc::new(Self(Mutex::new(state)))))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the statistics to be written with the checkpoint of the round that ends now.
    pub fn note(&self, round: usize) {
        let mut state = self.state();
        let now = state.allocator.state();
        state.noted.insert(round, now);
    }

    /// Writes the recorded statistics.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path, round: usize) -> Result<(), String> {
        let noted = self.state().noted.remove(&round);
        match noted {
            Some(state) => write_tensors(&path(folder, round), &state).map_err(|e| e.to_string()),
            None => Ok(()),
        }
    }
}

impl<M: Module + ModuleDisplay> Around<M> for Ranks {
    fn before(&self, adapted: &Adapted<M>, gradients: &GradientsParams) {
        self.state().allocator.observe(adapted, gradients);
    }

    fn after(&self, adapted: Adapted<M>) -> Adapted<M> {
        let mut state = self.state();
        let step = state.step;
        state.step += 1;
        state.allocator.allocate(step, adapted)
    }
}
