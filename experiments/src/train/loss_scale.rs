//! Dynamic loss scaling (Micikevicius et al. 2017, arXiv 1710.03740). Gradients of f16 activations underflow below 6e-8, so
//! the loss is multiplied by a power of two and the gradients, in f32 by then, are divided by it. A step whose gradients
//! overflow is skipped, and the next one has half the scale.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::cli::output::counted;
use crate::run::files::{read_json, write_sealed};

/// The first scale is 2 to this power, as in PyTorch.
const FIRST: u32 = 16;
/// Beyond 2 to this power a greater scale saves no f16 number.
const MOST: u32 = 24;
/// Steps without an overflow after which the scale is doubled.
const PATIENCE: usize = 2000;

/// The scale, and what it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// The loss is multiplied by 2 to this power.
    exponent: u32,
    /// Steps without an overflow since the scale was changed.
    good_steps: usize,
    /// Steps that were skipped.
    skipped: usize,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            exponent: FIRST,
            good_steps: 0,
            skipped: 0,
        }
    }
}

impl Scale {
    fn stepped(&mut self) {
        self.good_steps += 1;
        if self.good_steps == PATIENCE {
            self.good_steps = 0;
            self.exponent = (self.exponent + 1).min(MOST);
        }
    }

    /// False if the scale is 1 already: then it is not to blame.
    fn overflowed(&mut self) -> bool {
        let Some(exponent) = self.exponent.checked_sub(1) else {
            return false;
        };
        self.exponent = exponent;
        self.good_steps = 0;
        self.skipped += 1;
        true
    }
}

/// The scale of one training.
#[derive(Debug, Clone, Default)]
pub struct LossScale(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    now: Scale,
    /// To be written with the checkpoints of some rounds.
    noted: BTreeMap<usize, Scale>,
}

/// The file for a round.
fn path(folder: &Path, round: usize) -> PathBuf {
    folder.join(format!("loss-scale-{round}.json"))
}

/// The scale that was saved with a round; none if the round was trained without one.
///
/// # Errors
/// A file that cannot be read or is damaged.
pub fn read(folder: &Path, round: usize) -> Result<Option<Scale>, String> {
    let scale: Option<Scale> = read_json(&path(folder, round), "remove its folder to start anew")?;
    match scale {
        Some(scale) if scale.exponent > MOST => Err(format!(
            "{} is damaged (its exponent is {}, above {MOST}); remove its folder to start anew",
            path(folder, round).display(),
            scale.exponent
        )),
        other => Ok(other),
    }
}

impl LossScale {
    /// The scale of a training that starts after `round` (0: from the beginning), with the checkpoints in `folder`.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged.
    pub fn after(folder: &Path, round: usize) -> Result<Self, String> {
        let loss_scale = Self::default();
        if round > 0 {
            loss_scale.state().now = read(folder, round)?.unwrap_or_default();
        }
        Ok(loss_scale)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the loss is multiplied by.
    pub fn factor(&self) -> f64 {
        f64::from(self.state().now.exponent).exp2()
    }

    /// Hears of a step whose gradients are finite.
    pub fn stepped(&self) {
        self.state().now.stepped();
    }

    /// Hears of a step whose gradients are not; true if the step is to be skipped, false if the scale is not to blame.
    pub fn overflowed(&self) -> bool {
        self.state().now.overflowed()
    }

    /// Records the scale to be written with the checkpoint of the round that ends now.
    pub fn note(&self, round: usize) {
        let mut state = self.state();
        let now = state.now;
        state.noted.insert(round, now);
    }

    /// Writes the recorded scale.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path, round: usize) -> Result<(), String> {
        let noted = self.state().noted.remove(&round);
        match noted {
            Some(scale) => write_sealed(&path(folder, round), &scale),
            None => Ok(()),
        }
    }

    /// Removes the file of a round.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn remove(&self, folder: &Path, round: usize) -> std::io::Result<()> {
        files::remove_file(&path(folder, round))
    }

    /// How many steps were skipped over all sessions, in words; nothing if there was none.
    pub fn sentence(&self) -> Option<String> {
        let Scale { exponent, skipped, .. } = self.state().now;
        let verb = if skipped == 1 { "was" } else { "were" };
        (skipped > 0).then(|| {
            format!(
                "{} {verb} skipped because a gradient overflowed in f16; the loss scale is 2^{exponent} now",
                counted(skipped, "step")
            )
        })
    }
}

#[cfg(test)]
mod tests;
