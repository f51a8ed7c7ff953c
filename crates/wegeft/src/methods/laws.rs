//! The laws that every method keeps, on each CPU backend, and on a GPU in a build with `wgpu` or `vulkan`: a fresh adapter is the
//! frozen model, all routes give the same numbers and gradients, only the trained part moves, and files, records, merges,
//! exports and counts agree.

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, Tolerance};

use crate::site::{self, ParamInfo};
use crate::storage::read_config;
use crate::{Adapted, AdapterConfig, AdapterError, Adapters, Hook, TokenHook, linear};

mod net;

pub(super) use net::{Net, close, input, stir};

/// An adapter, and what is particular about it.
pub(super) struct Case {
    config: AdapterConfig,
    /// Greatest difference between the fresh adapter's output and the frozen model's; none if it starts elsewhere.
    start: Option<f64>,
    /// The factors whose gradient is that of the function; none for all.
    exact: Option<&'static [&'static str]>,
}

#[allow(deprecated)] // upstream deprecates ndarray; the project keeps it as a feature
fn devices() -> Vec<Device> {
    let cpu = [Device::flex(), Device::ndarray()];
    cpu.into_iter().chain(gpu()).map(Device::autodiff).collect()
}

#[cfg(not(any(feature = "wgpu", feature = "vulkan")))]
fn gpu() -> Option<Device> {
    None
}

/// None on a machine without a GPU, unless the environment says that it has one.
#[cfg(any(feature = "wgpu", feature = "vulkan"))]
fn gpu() -> Option<Device> {
    use burn::tensor::{DeviceKind, DeviceType};
    #[cfg(feature = "vulkan")]
    let (api, open): (_, fn(DeviceKind) -> Device) = (DeviceType::Vulkan, Device::vulkan);
    #[cfg(not(feature = "vulkan"))]
    let (api, open): (_, fn(DeviceKind) -> Device) = (DeviceType::Wgpu, Device::wgpu);
    let is_there = !Device::enumerate(api).is_empty();
    if !is_there {
        assert!(std::env::var_os("WEGEFT_NEEDS_GPU").is_none(), "no GPU is found");
        println!("not tested on a GPU: none is found");
    }
    is_there.then(|| open(DeviceKind::DefaultDevice))
}

impl Case {
    pub(super) fn new(config: AdapterConfig) -> Self {
        Self {
            config,
            start: Some(0.0),
            exact: None,
        }
    }

    /// The fresh adapter may differ from the frozen model by that much.
    pub(super) fn starting_within(mut self, tolerance: f64) -> Self {
        self.start = Some(tolerance);
        self
    }

    /// The fresh adapter is not the frozen model.
    pub(super) fn starting_elsewhere(mut self) -> Self {
        self.start = None;
        self
    }

    /// Only these factors have the gradient of the function: others count as constants somewhere, by design, or the
    /// function has kinks.
    pub(super) fn with_exact_gradients(mut self, names: &'static [&'static str]) -> Self {
        self.exact = Some(names);
        self
    }

    pub(super) fn check(&self) {
        for device in devices() {
            self.a_fresh_adapter_is_the_frozen_model(&device);
            self.all_routes_agree(&device);
            self.gradients_agree_with_finite_differences(&device);
            self.a_step_moves_the_trained_part_only(&device);
            self.files_and_records_give_the_same_bits(&device);
            self.what_has_a_lora_form_exports_as_lora(&device);
            self.counts_are_those_of_the_specs(&device);
        }
        self.a_mixed_batch_takes_it_if_it_says_so();
    }

    fn adapted(&self, d: usize, steps: usize, device: &Device) -> Adapted<Net> {
        stir(self.config.init(Net::new(d, 2, device)).unwrap(), d, steps, device)
    }

    fn a_fresh_adapter_is_the_frozen_model(&self, device: &Device) {
        let net = Net::new(8, 2, device);
        let x = input(8, device);
        let before = net.forward(x.clone(), true).into_data();
        let after = self.config.init(net).unwrap().bind().forward(x, true).into_data();
        match self.start {
            None => {}
            Some(0.0) => assert_eq!(after, before, "{:?}", self.config),
            Some(tolerance) => after.assert_approx_eq::<f32>(&before, Tolerance::absolute(tolerance)),
        }
    }

    /// Activation space, weight space and merged weights: outputs, and gradients however they are taken.
    fn all_routes_agree(&self, device: &Device) {
        let adapted = self.adapted(8, 3, device);
        let x = input(8, device);
        let ours = adapted.bind().forward(x.clone(), true);
        close(ours.clone(), adapted.bind().forward(x.clone(), false), 1e-4);
        match adapted.merge() {
            Ok(merged) => close(ours.clone(), merged.forward(x.clone(), false), 1e-4),
            Err(error) => assert!(matches!(error, AdapterError::NotMergeable { .. }), "{error}"),
        }
        assert_eq!(
            adapted.merge().is_ok(),
            self.config.method.merges(),
            "{:?}",
            self.config
        );
        let plain = adapted.bind().valid().forward(x.clone().inner(), true);
        close(plain, ours.inner(), 1e-5);

        let loss = |bound: &Net, ours| bound.forward(x.clone(), ours).powi_scalar(2).mean();
        let of_adapted = |ours| GradientsParams::from_grads(loss(&adapted.bind(), ours).backward(), &adapted);
        let of_bound = || {
            let bound = adapted.bind();
            GradientsParams::from_grads(loss(&bound, true).backward(), &bound)
        };
        let (ours, dense, bound) = (of_adapted(true), of_adapted(false), of_bound());
        assert_eq!(ours.len(), bound.len(), "{:?}", self.config);
        let frozen = adapted.bank().frozen();
        for param in site::params(adapted.bank()) {
            let all = [&ours, &dense, &bound].map(|grads| gradient(grads, &param));
            assert_eq!(all[0].is_none(), frozen.contains(&param.id), "{}", param.path);
            if let [Some(a), Some(b), Some(c)] = all {
                assert!(distance(&a, &b) < 1e-4, "{:?}: {}", self.config, param.path);
                assert!(distance(&a, &c) < 1e-6, "{:?}: {}", self.config, param.path);
            }
        }
    }

    fn gradients_agree_with_finite_differences(&self, device: &Device) {
        let adapted = self.adapted(4, 2, device);
        let x = input(4, device);
        let loss = |adapted: &Adapted<Net>| adapted.bind().forward(x.clone(), true).powi_scalar(2).mean();
        let grads = GradientsParams::from_grads(loss(&adapted).backward(), &adapted);
        for param in site::params(adapted.bank()) {
            let is_exact = |name: &str| param.path.ends_with(&format!(".{name}"));
            let exact = self.exact.is_none_or(|names| names.iter().any(|name| is_exact(name)));
            let Some(grad) = gradient(&grads, &param).filter(|_| exact) else {
                continue;
            };
            let nudged = |index, by| {
                let id = param.id;
                loss(&adapted.clone().map(&mut Nudge { id, index, by })).into_scalar::<f32>()
            };
            let slope = |index, by: f32| (nudged(index, by) - nudged(index, -by)) / (2.0 * by);
            // Two steps, so that what bends like a cube cancels (Richardson).
            let numeric = |index| (4.0 * slope(index, 2.5e-3) - slope(index, 5e-3)) / 3.0;
            let numeric: Vec<f32> = (0..grad.len()).map(numeric).collect();
            let length = distance(&grad, &vec![0.0; grad.len()]);
            let apart = distance(&grad, &numeric);
            assert!(
                apart < 1e-2 * length + 1e-4 * (grad.len() as f32).sqrt(),
                "{:?}, {}: {grad:?} against {numeric:?}",
                self.config,
                param.path
            );
        }
    }

    fn a_step_moves_the_trained_part_only(&self, device: &Device) {
        let adapted = self.adapted(8, 0, device);
        let in_full = !adapted.saved_params().is_empty();
        let bytes = |adapted: &Adapted<Net>| adapted.backbone().clone().into_record().into_bytes().unwrap();
        let before = bytes(&adapted);
        let after = stir(adapted, 8, 1, device);
        assert_eq!(before[..] == bytes(&after)[..], !in_full, "{:?}", self.config);
    }

    fn files_and_records_give_the_same_bits(&self, device: &Device) {
        let net = Net::new(8, 2, device);
        let adapted = stir(self.config.init(net.clone()).unwrap(), 8, 2, device);
        let x = input(8, device);
        let expected = adapted.bind().forward(x.clone(), true).into_data();
        let folder = tempfile::tempdir().unwrap();
        adapted.save(folder.path()).unwrap();
        assert_eq!(read_config(folder.path()).unwrap(), self.config);
        let loaded = Adapted::load(net.clone(), folder.path()).unwrap();
        assert_eq!(loaded.bind().forward(x.clone(), true).into_data(), expected);
        let record = adapted.into_record();
        let from_record = self.config.init(net).unwrap().load_record(record);
        assert_eq!(from_record.bind().forward(x, true).into_data(), expected);
    }

    fn what_has_a_lora_form_exports_as_lora(&self, device: &Device) {
        let net = Net::new(8, 2, device);
        let x = input(8, device);
        let adapted = stir(self.config.init(net.clone()).unwrap(), 8, 3, device);
        let folder = tempfile::tempdir().unwrap();
        let exported = adapted.export_lora(folder.path());
        assert_eq!(
            exported.is_ok(),
            self.config.method.has_lora_form(),
            "{:?}",
            self.config
        );
        if exported.is_ok() {
            let lora = Adapted::load(net, folder.path()).unwrap();
            let ours = adapted.bind().forward(x.clone(), true);
            close(ours, lora.bind().forward(x, true), 1e-4);
        }
    }

    fn counts_are_those_of_the_specs(&self, device: &Device) {
        let adapted = self.adapted(8, 0, device);
        let groups = adapted.bank().groups().iter();
        let sites: Vec<_> = groups.flat_map(|group| group.sites.clone()).collect();
        let counted = adapted.summary().adapter_params;
        assert_eq!(
            counted,
            self.config.method.params_of(&sites).unwrap(),
            "{:?}",
            self.config
        );
        let frozen = adapted.bank().frozen();
        let trained = site::params(adapted.bank())
            .into_iter()
            .filter(|param| !frozen.contains(&param.id));
        assert_eq!(
            counted,
            trained.map(|param| param.len()).sum::<usize>(),
            "{:?}",
            self.config
        );
    }

    fn a_mixed_batch_takes_it_if_it_says_so(&self) {
        let device = Device::flex().autodiff();
        let mut adapters = Adapters::new(Net::new(8, 2, &device));
        adapters.add("own", &self.config).unwrap();
        let taken = adapters.bind_rows(&["own", "own"]).is_ok();
        assert_eq!(taken, self.config.method.mixes(), "{:?}", self.config);
    }
}

fn gradient(grads: &GradientsParams, param: &ParamInfo) -> Option<Vec<f32>> {
    let data = match param.shape.len() {
        1 => grads.get::<1>(param.id).map(Tensor::into_data),
        2 => grads.get::<2>(param.id).map(Tensor::into_data),
        3 => grads.get::<3>(param.id).map(Tensor::into_data),
        _ => grads.get::<4>(param.id).map(Tensor::into_data),
    };
    data.map(|data| data.iter::<f32>().collect())
}

/// Euclidean.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let squares = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b));
    squares.sum::<f32>().sqrt()
}

struct Nudge {
    id: ParamId,
    index: usize,
    by: f32,
}

impl ModuleMapper for Nudge {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if param.id != self.id {
            return param;
        }
        param.map(|tensor| {
            let (device, shape) = (tensor.device(), tensor.dims());
            let mut values: Vec<f32> = tensor.into_data().iter::<f32>().collect();
            values[self.index] += self.by;
            Tensor::<1>::from_floats(values.as_slice(), &device)
                .reshape(shape)
                .require_grad()
        })
    }
}
