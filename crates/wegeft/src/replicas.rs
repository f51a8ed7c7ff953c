//! An adapted model on other devices: what is frozen moves to each of them once, what is trained with every fork.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::Module;
use burn::tensor::Device;

/// Copies of one frozen model, one for each other device that asked for one. Clones share them.
#[derive(Clone)]
pub(crate) struct Replicas<M>(Arc<Mutex<Vec<(Device, M)>>>);

impl<M> Default for Replicas<M> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<M> fmt::Debug for Replicas<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replicas")
    }
}

impl<M: Module> Replicas<M> {
    /// `model` on `device`, moved there if nobody did before.
    pub(crate) fn at(&self, model: &M, device: &Device) -> M {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Devices are equal with and without autodiff.
        let same = |other: &Device| other == device && other.is_autodiff() == device.is_autodiff();
        if let Some((_, replica)) = known.iter().find(|(other, _)| same(other)) {
            return replica.clone();
        }
        let replica = model.clone().fork(device);
        known.push((device.clone(), replica.clone()));
        replica
    }
}
