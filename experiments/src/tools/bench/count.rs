//! Counts the kernels that a pass launches and the bytes that it needs, instead of its time: what shows progress on a
//! machine without a GPU. A Vulkan driver for the CPU is enough, because the kernels are compiled but not run.

use std::collections::BTreeMap;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::choice::{Method, Work};
use super::{Args, Pass};
use crate::cli::program::built_with;

/// Passes after which the number of launches is taken as it is, if no two passes in a row agree before.
const MOST: usize = 8;

/// What a pass of a workload needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Workload.
    pub workload: String,
    /// Method.
    pub method: String,
    /// Device.
    pub device: String,
    /// Data type of the weights as stored.
    pub dtype: String,
    /// Images, or texts.
    pub batch: usize,
    /// Tokens of an image or text.
    pub tokens: usize,
    /// Kernels launched by a pass, everything compiled and tuned.
    pub launches: usize,
    /// Kernels launched by the first pass, those of tuning included.
    pub first_launches: usize,
    /// Bytes that the necessary matrix products read and write.
    pub product_bytes: u64,
    /// Bytes of the tensors that are left after the pass: weights, optimizer, cache, inputs.
    pub tensor_bytes: Option<u64>,
    /// Bytes that the device's allocator holds, which is close to the peak.
    pub device_bytes: Option<u64>,
    /// Launches of a pass by kernel.
    pub kernels: BTreeMap<String, usize>,
}

/// # Errors
/// A device that launches no kernels.
pub fn check(name: &str, device: &Device) -> Result<(), String> {
    match device.memory_pool_usage() {
        Some(_) => Ok(()),
        None => Err(format!(
            "--count: {name} launches no kernels; run: {}--count --device vulkan (a Vulkan driver for the CPU will do: \
             docs/gpus.md)",
            built_with("vulkan")
        )),
    }
}

/// Counts for one workload.
///
/// # Errors
/// A method that the workload has not, an unusable --model.
pub fn count(args: &Args, work: Work, method: Method) -> Result<Counts, String> {
    let device = crate::cli::device::device(&args.device)?;
    let mut ready = super::ready(args, work, method, &device)?;
    let dtype = args.stored(work);
    let element = match dtype.as_str() {
        "bf16" | "f16" => 2,
        _ => 4,
    };
    let product_bytes = ready.products.iter().map(|product| element * product.elements()).sum();
    let passes = watched(&mut ready.pass, args.warm_up, &device)?;
    let usage = device.memory_pool_usage();
    let last = passes.last().cloned().unwrap_or_default();
    let total = |kernels: &BTreeMap<String, usize>| kernels.values().sum();
    Ok(Counts {
        workload: work.name(),
        method: method.name(),
        device: args.device.clone(),
        dtype,
        batch: ready.batch,
        tokens: ready.tokens,
        launches: total(&last),
        first_launches: passes.first().map_or(0, total),
        product_bytes,
        tensor_bytes: usage.map(|usage| usage.bytes_in_use),
        device_bytes: usage.map(|usage| usage.bytes_reserved),
        kernels: last,
    })
}

/// The launches of passes, until tuning has ended: after `warm_up` of them, until two in a row agree.
fn watched(pass: &mut Pass, warm_up: usize, device: &Device) -> Result<Vec<BTreeMap<String, usize>>, String> {
    let mut passes: Vec<BTreeMap<String, usize>> = Vec::new();
    while passes.len() < warm_up + MOST {
        let kernels = launches::during(|| {
            drop(pass());
            device.sync().expect("the device answers");
        })?;
        let is_steady = passes.len() >= warm_up.max(1) && passes.last() == Some(&kernels);
        passes.push(kernels);
        if is_steady {
            break;
        }
    }
    Ok(passes)
}

/// The name of a kernel without its path and parameters: `a::b::kernel<f32>` is `kernel`.
#[cfg_attr(
    not(any(feature = "gpu", test)),
    expect(dead_code, reason = "no backend launches kernels")
)]
fn short(kernel: &str) -> &str {
    let path = kernel.split('<').next().unwrap_or(kernel);
    path.rsplit("::").next().unwrap_or(path)
}

#[cfg(feature = "gpu")]
mod launches {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, PoisonError};

    use burn::cubecl::dry_run::DryRun;
    use burn::cubecl::logging::{LaunchObservation, LaunchObserver};

    use super::short;

    #[derive(Default)]
    struct Seen(Mutex<BTreeMap<String, usize>>);

    impl LaunchObserver for Seen {
        fn launched(&self, kernel: &'static str) {
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *seen.entry(short(kernel).to_string()).or_default() += 1;
        }
    }

    /// How often each kernel is launched during `work`. Only the kernels of tuning are run: what others compute is
    /// meaningless.
    pub fn during(work: impl FnOnce()) -> Result<BTreeMap<String, usize>, String> {
        let seen = Arc::new(Seen::default());
        let watching = LaunchObservation::new(seen.clone());
        let dry = DryRun::new();
        work();
        drop((watching, dry));
        let seen = seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(seen.clone())
    }
}

#[cfg(not(feature = "gpu"))]
mod launches {
    use std::collections::BTreeMap;

    pub fn during(_work: impl FnOnce()) -> Result<BTreeMap<String, usize>, String> {
        Err("--count: this program has no backend that launches kernels".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kernels_are_short() {
        assert_eq!(
            short("burn_cubecl::kernel::slice::SliceKernel<f32, u32>"),
            "SliceKernel"
        );
        assert_eq!(short("matmul_entry"), "matmul_entry");
    }

    #[test]
    fn a_device_without_kernels_is_refused_with_what_to_do() {
        let message = check("flex", &Device::flex()).unwrap_err();
        assert!(
            message.contains("flex launches no kernels") && message.contains("--device vulkan"),
            "{message}"
        );
    }
}
