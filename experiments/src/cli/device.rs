//! The only module that names Burn's backends.

use std::io::Write;
use std::sync::Once;

use burn::tensor::Device;
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "webgpu"))]
use burn::tensor::DeviceKind;
#[cfg(feature = "gpu")]
use burn::tensor::DeviceType;

use super::program::built_with;
use super::remote;

/// The GPU backend of this build: the first in this list that is compiled in.
pub const GPU: Option<&str> = if cfg!(feature = "cuda") {
    Some("cuda")
} else if cfg!(feature = "rocm") {
    Some("rocm")
} else if cfg!(feature = "metal") {
    Some("metal")
} else if cfg!(feature = "vulkan") {
    Some("vulkan")
} else if cfg!(feature = "wgpu") {
    Some("wgpu")
} else if cfg!(feature = "webgpu") {
    Some("webgpu")
} else {
    None
};

/// The default device: flex, or the first of the GPU and ndarray that is compiled in.
pub const DEFAULT: &str = match GPU {
    _ if cfg!(feature = "flex") => "flex",
    Some(gpu) => gpu,
    None if cfg!(feature = "ndarray") => "ndarray",
    None => "flex",
};

/// Between the names of devices that share each training.
pub const TOGETHER: &str = "+";

/// The names in a name of several devices, `cuda:0+cuda:1`.
pub fn members(names: &str) -> Vec<&str> {
    names.split(TOGETHER).map(str::trim).collect()
}

/// The devices of such a name.
///
/// # Errors
/// As [`device`].
pub fn devices(names: &str) -> Result<Vec<Device>, String> {
    members(names).into_iter().map(device).collect()
}

/// The device of that name: `flex`, `ndarray`, `vulkan`, `cuda:1`, … An index after a colon chooses among several. A
/// device of another machine is `ws://HOST:PORT#INDEX`.
///
/// # Errors
/// An unknown name, a bad index, or a backend that is not compiled in (with the command that adds it).
pub fn device(name: &str) -> Result<Device, String> {
    if name.contains("://") {
        return remote::device(name);
    }
    let (backend, index) = match name.split_once(':') {
        Some((backend, index)) => {
            let parsed = index.parse::<usize>();
            (
                backend,
                Some(parsed.map_err(|_| format!("--device {name}: '{index}' is not a device number"))?),
            )
        }
        None => (name, None),
    };
    if matches!(backend, "flex" | "ndarray") && index.is_some_and(|index| index > 0) {
        return Err(format!(
            "--device {name}: there is one CPU device; leave the number out"
        ));
    }
    #[allow(unreachable_patterns)] // the last list names every backend, compiled in or not
    let found = match backend {
        #[cfg(feature = "flex")]
        "flex" => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)] // upstream deprecates it; kept because users ask for it
        "ndarray" => Ok(Device::ndarray()),
        #[cfg(feature = "wgpu")]
        "wgpu" => gpu(name, index, DeviceType::Wgpu, Device::wgpu),
        #[cfg(feature = "vulkan")]
        "vulkan" => gpu(name, index, DeviceType::Vulkan, Device::vulkan),
        #[cfg(feature = "metal")]
        "metal" => gpu(name, index, DeviceType::Metal, Device::metal),
        #[cfg(feature = "webgpu")]
        "webgpu" => gpu(name, index, DeviceType::WebGpu, Device::webgpu),
        #[cfg(feature = "cuda")]
        "cuda" => numbered(name, index, DeviceType::Cuda, |index| Device::cuda(index)),
        #[cfg(feature = "rocm")]
        "rocm" => numbered(name, index, DeviceType::Rocm, |index| Device::rocm(index)),
        "flex" | "ndarray" | "wgpu" | "vulkan" | "metal" | "webgpu" | "cuda" | "rocm" => Err(format!(
            "--device {name}: this program was built without it; run: {}--device {name}",
            built_with(backend)
        )),
        _ if backend.contains(['+', ',']) => Err(format!("--device {name}: one device is enough here")),
        _ => Err(format!(
            "--device {name}: unknown; choose flex, ndarray, wgpu, vulkan, metal, webgpu, cuda or rocm, with :N for the N-th, \
             or ws://HOST:PORT#N for one of another machine"
        )),
    };
    if found.is_ok() && !matches!(backend, "flex" | "ndarray") {
        warn_of_tuning();
    }
    found
}

/// True for a device whose operations return only when their results are computed, so that reading a result costs
/// nothing.
pub fn computes_at_once(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    if *device == Device::flex() {
        return true;
    }
    #[cfg(feature = "ndarray")]
    #[allow(deprecated)]
    if *device == Device::ndarray() {
        return true;
    }
    let _ = device;
    false
}

/// A first step that takes minutes looks like a hang: for a single matrix product of a ViT-S, Vulkan on an H200 took 25
/// s to compile and try the candidate kernels.
fn warn_of_tuning() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = writeln!(
            std::io::stderr().lock(),
            "GPUs compile and try kernels in the first steps, which can take minutes; the choice is kept for later runs"
        );
    });
}

/// Index 0 is the best GPU available, even if it is an integrated or a software GPU; other indices count discrete GPUs.
/// Burn opens a device at its first operation, and panics if there is none.
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "webgpu"))]
fn gpu(name: &str, index: Option<usize>, api: DeviceType, open: fn(DeviceKind) -> Device) -> Result<Device, String> {
    let found = Device::enumerate(api);
    match index.filter(|index| *index > 0) {
        None if found.is_empty() => Err(format!(
            "--device {name}: no such GPU is found here; install its driver, or choose another device"
        )),
        None => Ok(open(DeviceKind::DefaultDevice)),
        Some(index) => {
            let device = open(DeviceKind::DiscreteGpu(index));
            let is_there = found.contains(&device);
            is_there.then_some(device).ok_or_else(|| {
                format!("--device {name}: no discrete GPU of that number is found here; without a number, the best GPU is used")
            })
        }
    }
}

/// The GPU of that index, 0 if there is none. Burn opens a device at its first operation, and panics if there is none.
#[cfg(any(feature = "cuda", feature = "rocm"))]
fn numbered(name: &str, index: Option<usize>, api: DeviceType, open: fn(usize) -> Device) -> Result<Device, String> {
    let index = index.unwrap_or(0);
    match Device::enumerate(api).len() {
        0 => Err(format!(
            "--device {name}: no such GPU is found here; install its driver, or choose another device"
        )),
        count if index >= count => Err(format!(
            "--device {name}: there are {count} such GPUs here, numbered from 0; choose another number"
        )),
        _ => Ok(open(index)),
    }
}

#[cfg(test)]
mod tests {
    use super::{device, devices};

    #[test]
    fn a_missing_backend_names_the_command_that_adds_it() {
        let error = device("cuda:1").map(|_| ()).unwrap_err();
        assert!(error.contains("cargo run -p experiments --features cuda"), "{error}");
    }

    #[cfg(all(feature = "flex", feature = "ndarray"))]
    #[test]
    fn cpu_devices_compute_at_once() {
        for name in ["flex", "ndarray"] {
            let device = device(name).unwrap();
            assert!(super::computes_at_once(&device) && super::computes_at_once(&device.autodiff()));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(device("tpu").is_err() && device("flex:1").is_err() && device("cuda:x").is_err());
        assert!(device("flex").is_ok() && device("flex:0").is_ok());
        let message = device("flex+flex").map(|_| ()).unwrap_err();
        assert!(message.contains("one device is enough"), "{message}");
        assert_eq!(devices("flex + flex:0").unwrap().len(), 2);
        assert!(devices("flex+tpu").is_err());
    }
}
