//! One optimizer step on several devices: each takes a share of every batch, and the gradients are summed on the first, in
//! the devices' order, so that the same devices give the same numbers again. To burn-train it is the step of one device:
//! what is measured, clipped, logged and saved is that of the whole batch, however many devices there are.
//!
//! Burn's own strategy for several devices hands the items of each device to the metrics by themselves and sums gradients
//! in the order in which devices happen to finish.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Result;

use burn::tensor::Device;

use crate::cli::remote::is_remote;

/// What a device's thread keeps from one step to the next.
pub type Kept = Option<Box<dyn Any + Send>>;

type Job = Box<dyn FnOnce(&Device, &mut Kept) + Send>;

/// The devices of a training.
#[derive(Clone)]
pub struct Team {
    first: Device,
    others: Arc<Vec<Member>>,
    /// For each share of a batch, who takes it: `None` for the first device.
    takers: Arc<Vec<Option<usize>>>,
}

/// A device beside the first one, and its thread: one for the whole training, since GPUs keep queues and memory for every
/// thread that speaks to them.
struct Member {
    device: Device,
    jobs: Sender<Job>,
}

impl Team {
    /// The team of `devices`, at least one. A device that is named twice takes its shares one after the other: they would
    /// draw from the same random numbers.
    pub fn new(devices: &[Device]) -> Self {
        let mut others: Vec<Member> = Vec::new();
        let mut takers = Vec::new();
        for device in devices {
            let known = || others.iter().position(|member| member.device == *device);
            takers.push(match *device == devices[0] {
                true => None,
                false => Some(known().unwrap_or_else(|| {
                    others.push(Member::new(device));
                    others.len() - 1
                })),
            });
        }
        Self {
            first: devices[0].clone(),
            others: Arc::new(others),
            takers: Arc::new(takers),
        }
    }

    /// The device that the model is on.
    pub fn first(&self) -> &Device {
        &self.first
    }

    /// True if it has several devices, one of which is of another machine.
    pub fn is_spread(&self) -> bool {
        let others = || self.others.iter().any(|member| is_remote(&member.device));
        !self.others.is_empty() && (is_remote(&self.first) || others())
    }

    /// Does the `shares` of each batch, numbered: `own` does those of the first device here, `away` those of another one on
    /// its thread, while this one works; `away` itself is made if there are any. What came of them, in the devices' order.
    ///
    /// # Panics
    /// With what another device's thread panicked with.
    pub fn run<J, R, A>(&self, shares: Vec<Vec<J>>, own: impl FnOnce(Vec<J>) -> R, away: impl Fn() -> A) -> Vec<R>
    where
        J: Send + 'static,
        R: Send + 'static,
        A: FnOnce(Vec<J>, &Device, &mut Kept) -> R + Send + 'static,
    {
        let mut here = Vec::new();
        let mut there: Vec<Vec<J>> = self.others.iter().map(|_| Vec::new()).collect();
        for batch in shares {
            for (share, taker) in batch.into_iter().zip(&*self.takers) {
                match taker {
                    None => here.push(share),
                    Some(member) => there[*member].push(share),
                }
            }
        }
        let busy = self.others.iter().zip(there).filter(|(_, jobs)| !jobs.is_empty());
        let waiting: Vec<Receiver<Result<R>>> = busy.map(|(member, jobs)| member.start(jobs, away())).collect();
        let mut results = vec![own(here)];
        for result in waiting {
            match result.recv() {
                Ok(Ok(result)) => results.push(result),
                Ok(Err(panic)) => resume_unwind(panic),
                Err(_) => panic!("the thread of a device ended"),
            }
        }
        results
    }
}

impl Member {
    fn new(device: &Device) -> Self {
        let (jobs, received) = channel::<Job>();
        let own = device.clone();
        // Ends with the team.
        std::thread::spawn(move || {
            let mut kept = None;
            for job in received {
                job(&own, &mut kept);
            }
        });
        Self {
            device: device.clone(),
            jobs,
        }
    }

    fn start<J, R, A>(&self, jobs: Vec<J>, work: A) -> Receiver<Result<R>>
    where
        J: Send + 'static,
        R: Send + 'static,
        A: FnOnce(Vec<J>, &Device, &mut Kept) -> R + Send + 'static,
    {
        let (sender, result) = channel();
        // A thread that is gone, or a receiver that is, shows where the result is awaited.
        let _ = self.jobs.send(Box::new(move |device, kept| {
            let done = catch_unwind(AssertUnwindSafe(|| work(jobs, device, kept)));
            let _ = sender.send(done);
        }));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "ndarray")]
    #[allow(deprecated)] // upstream deprecates ndarray
    fn shares_go_to_their_devices_and_come_back_in_order() {
        let (flex, ndarray) = (Device::flex(), Device::ndarray());
        let team = Team::new(&[flex.clone(), ndarray.clone(), flex.clone(), ndarray.clone()]);
        assert_eq!(team.others.len(), 1);
        let away = || {
            let ndarray = ndarray.clone();
            move |jobs: Vec<usize>, device: &Device, kept: &mut Kept| {
                assert_eq!(*device, ndarray);
                assert!(!jobs.contains(&7), "on purpose");
                // What the first job keeps, the later ones find.
                let first = kept.get_or_insert_with(|| Box::new(jobs.clone()));
                assert_eq!(first.downcast_ref(), Some(&vec![1_usize, 3, 5]));
                jobs
            }
        };
        let found = team.run(vec![vec![0, 1, 2, 3], vec![4, 5], vec![6]], |own| own, away);
        assert_eq!(found, [vec![0, 2, 4, 6], vec![1, 3, 5]]);
        // A batch of one example needs nobody else.
        assert_eq!(team.run(vec![vec![8]], |own| own, away), [vec![8]]);
        // What fails there fails here, and the thread goes on.
        assert!(catch_unwind(AssertUnwindSafe(|| team.run(vec![vec![8, 7]], |own| own, away))).is_err());
        assert_eq!(team.run(vec![vec![8, 9]], |own| own, away), [vec![8], vec![9]]);
    }
}
