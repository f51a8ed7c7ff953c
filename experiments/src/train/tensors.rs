//! A model's tensors, searched for those that are not finite, and for trained ones that no gradient reaches.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleDisplay, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};
use wegeft::Adapted;

/// The first trained tensor with an element that is not finite or, if `grads` are given, with such an element in its
/// gradient.
pub fn first_not_finite<M: Module + ModuleDisplay>(
    adapted: &Adapted<M>,
    grads: Option<&GradientsParams>,
) -> Option<String> {
    let found = search(adapted, Among::Trained, grads, is_not_finite);
    found.first().map(|path| place(adapted, path))
}

/// The first tensor of the paths `among` with an element that is not finite.
pub fn first_not_finite_of<M: Module + ModuleDisplay>(
    adapted: &Adapted<M>,
    among: &BTreeSet<String>,
) -> Option<String> {
    let found = search(adapted, Among::Listed(among), None, is_not_finite);
    found.first().map(|path| place(adapted, path))
}

/// The first weight of `model`, trained or not, with an element that is not finite.
pub fn first_not_finite_weight<M: Module>(model: &M) -> Option<String> {
    search(model, Among::All, None, is_not_finite).into_iter().next()
}

/// The paths of the trained tensors, which a model that is not trained any more does not tell.
pub fn trained<M: Module + ModuleDisplay>(adapted: &Adapted<M>) -> BTreeSet<String> {
    let all = search(adapted, Among::Trained, Some(&GradientsParams::new()), |_| true);
    all.into_iter().collect()
}

/// The trained tensors whose gradient is missing or zero.
pub fn silent<M: Module + ModuleDisplay>(adapted: &Adapted<M>, grads: &GradientsParams) -> BTreeSet<String> {
    let found = search(adapted, Among::Trained, Some(grads), |sum| {
        sum.is_none_or(|sum| sum == 0.0)
    });
    found.iter().map(|path| place(adapted, path)).collect()
}

fn is_not_finite(sum: Option<f64>) -> bool {
    sum.is_some_and(|sum| !sum.is_finite())
}

/// The tensors that are looked at.
#[derive(Clone, Copy)]
enum Among<'a> {
    Trained,
    Listed(&'a BTreeSet<String>),
    All,
}

/// The paths of the tensors `among` which have a `wanted` sum of their absolute elements or, if `grads` are given, of
/// those of their gradients, which may be missing.
fn search<M: Module>(
    model: &M,
    among: Among,
    grads: Option<&GradientsParams>,
    wanted: fn(Option<f64>) -> bool,
) -> Vec<String> {
    let mut search = Search {
        path: Vec::new(),
        among,
        grads,
        found: Vec::new(),
        wanted,
    };
    model.visit(&mut search);
    search.found
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

/// See [`search`].
struct Search<'a> {
    path: Vec<String>,
    among: Among<'a>,
    grads: Option<&'a GradientsParams>,
    found: Vec<String>,
    wanted: fn(Option<f64>) -> bool,
}

impl ModuleVisitor for Search<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.base();
        let path = self.path.join(".");
        let path = path
            .strip_prefix("bank.")
            .or(path.strip_prefix("model."))
            .unwrap_or(&path);
        let looked_at = match self.among {
            Among::Trained => value.is_require_grad(),
            Among::Listed(among) => among.contains(path),
            // Quantizing has refused what is not finite.
            Among::All => !matches!(value.dtype(), DType::QFloat(_)),
        };
        if !looked_at || value.shape().num_elements() == 0 {
            return;
        }
        let tensor = match self.grads {
            Some(grads) => grads.get::<D>(param.id),
            None => Some(value.without_autodiff()),
        };
        // On some devices, the maximum over elements ignores NaN; the sum does not.
        let sum = tensor.map(|tensor| tensor.cast(DType::F32).abs().sum().into_scalar::<f64>());
        if (self.wanted)(sum) {
            self.found.push(path.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;
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
    }

    #[test]
    fn tensors_that_are_not_finite_are_named() {
        let adapted = adapted();
        assert_eq!(first_not_finite(&adapted, None), None);
        assert_eq!(first_not_finite(&adapted, Some(&grads(&adapted, 1.0))), None);
        let name = first_not_finite(&adapted, Some(&grads(&adapted, f32::NAN)));
        assert!(name.as_ref().is_some_and(|name| name.contains("used")), "{name:?}");
    }

    #[test]
    fn a_frozen_weight_that_is_not_finite_is_named() {
        let mut net = adapted().backbone().clone();
        assert_eq!(first_not_finite_weight(&net), None);
        net.unused.weight = net.unused.weight.map(|weight| weight.mul_scalar(f32::INFINITY));
        assert_eq!(first_not_finite_weight(&net).as_deref(), Some("unused.weight"));
        let config = AdapterConfig::lora(2).with_target_modules(["used", "unused"]);
        let adapted = config.init(net).unwrap();
        assert_eq!(first_not_finite(&adapted, None), None);
        assert_eq!(
            first_not_finite_weight(adapted.backbone()).as_deref(),
            Some("unused.weight")
        );
    }
}
