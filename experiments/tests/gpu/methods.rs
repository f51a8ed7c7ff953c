//! The methods on a GPU give flex's outputs, gradients and merged weights. Their laws run there too, but take minutes each on a
//! driver for the CPU (`docs/gpus.md`).

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use experiments::cli::device::device;
use wegeft::site::ParamInfo;
use wegeft::{Adapted, AdapterConfig, Hook, Sharing, TokenHook, WegeftConfig, linear, site};

use crate::program::{GPU, no_gpu};

#[path = "../../../crates/wegeft/src/methods/laws/net.rs"]
mod net;

use net::{Net, close, input, stir};

/// Outputs for `x`, the gradient of each trained factor, and the outputs of the merged model.
struct Results {
    outputs: Tensor<3>,
    gradients: Vec<(String, Vec<f32>)>,
    merged: Option<Tensor<3>>,
}

fn gradient(grads: &GradientsParams, param: &ParamInfo) -> Option<Vec<f32>> {
    let data = match param.shape.len() {
        1 => grads.get::<1>(param.id).map(Tensor::into_data),
        _ => grads.get::<2>(param.id).map(Tensor::into_data),
    };
    data.map(|data| data.iter::<f32>().collect())
}

fn results(adapted: &Adapted<Net>, x: &Tensor<3>, in_activations: bool) -> Results {
    let outputs = adapted.bind().forward(x.clone(), in_activations);
    let grads = GradientsParams::from_grads(outputs.clone().powi_scalar(2).mean().backward(), adapted);
    let params = site::params(adapted.bank());
    let gradients = params
        .iter()
        .filter_map(|param| Some((param.path.clone(), gradient(&grads, param)?)));
    Results {
        gradients: gradients.collect(),
        outputs: outputs.inner(),
        merged: adapted
            .merge()
            .ok()
            .map(|merged| merged.forward(x.clone(), false).inner()),
    }
}

#[test]
fn methods_compute_what_they_compute_on_flex() {
    if no_gpu() {
        return;
    }
    let (flex, gpu) = (Device::flex().autodiff(), device(GPU).unwrap().autodiff());
    let sharing = |sharing| AdapterConfig::new(WegeftConfig::new(2).with_alpha(3.0).with_sharing(sharing));
    for config in [
        sharing(Sharing::Kind),
        sharing(Sharing::Site),
        AdapterConfig::lora(2),
        AdapterConfig::dora(2),
        AdapterConfig::vera(4),
    ] {
        let config = config.with_target_modules(["proj", "up", "down"]);
        let there = stir(config.init(Net::new(8, 2, &flex)).unwrap(), 8, 3, &flex);
        let here = there.clone().fork(&gpu);
        let x = input(8, &flex);
        let moved = x.clone().to_device(&gpu);
        for in_activations in [true, false] {
            let [expected, found] =
                [(&there, &x), (&here, &moved)].map(|(adapted, x)| results(adapted, x, in_activations));
            close(found.outputs, expected.outputs, 1e-4);
            assert_eq!(found.merged.is_some(), expected.merged.is_some(), "{config:?}");
            if let (Some(found), Some(expected)) = (found.merged, expected.merged) {
                close(found, expected, 1e-4);
            }
            assert!(expected.gradients.len() > 1, "{config:?}");
            assert_eq!(found.gradients.len(), expected.gradients.len(), "{config:?}");
            for ((path, found), (_, expected)) in found.gradients.iter().zip(&expected.gradients) {
                assert!(expected.iter().any(|value| *value != 0.0), "{config:?}, {path}");
                for (found, expected) in found.iter().zip(expected) {
                    assert!(
                        (found - expected).abs() < 1e-4,
                        "{config:?}, {path}: {found} {expected}"
                    );
                }
            }
        }
    }
}
