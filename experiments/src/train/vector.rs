//! What is trained, and its gradients, as one vector: between machines each message costs a round trip, and Burn would send
//! one for every tensor, from worker to worker, which need not reach each other.

use burn::module::{Module, ModuleDisplay, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use wegeft::Adapted;

use crate::cli::device::{DEFAULT, device};
use crate::cli::remote::is_remote;
use crate::train::devices::Kept;

/// The values of the trained tensors, one after the other, in f32, which holds those of shorter types exactly.
#[derive(Clone)]
pub struct Values(TensorData);

impl Values {
    /// Those of `adapted`; waits for its device.
    pub fn of<M: Module + ModuleDisplay>(adapted: &Adapted<M>) -> Self {
        let mut gather = Gather::default();
        adapted.visit(&mut gather);
        Self(gather.data())
    }

    /// `adapted`, of which these are the trained tensors on another device, with them.
    pub fn in_place<M: Module + ModuleDisplay>(self, adapted: Adapted<M>, device: &Device) -> Adapted<M> {
        if self.0.num_elements() == 0 {
            return adapted;
        }
        adapted.map(&mut Scatter {
            values: Tensor::from_data(self.0, (device, DType::F32)),
            at: 0,
        })
    }
}

/// Gradients of trained tensors.
pub struct Gradients {
    data: TensorData,
    /// Whose they are: a tensor that no gradient reached has none.
    of: Vec<(ParamId, DType)>,
}

impl Gradients {
    /// `grads` of `adapted`; waits for its device.
    pub fn of<M: Module + ModuleDisplay>(adapted: &Adapted<M>, grads: GradientsParams) -> Self {
        let mut gather = Gather {
            grads: Some(grads),
            ..Gather::default()
        };
        adapted.visit(&mut gather);
        let of = std::mem::take(&mut gather.of);
        Self {
            data: gather.data(),
            of,
        }
    }

    /// Them on `device`, for `adapted` there.
    pub fn on<M: Module + ModuleDisplay>(self, adapted: &Adapted<M>, device: &Device) -> GradientsParams {
        let mut grads = GradientsParams::new();
        if self.of.is_empty() {
            return grads;
        }
        let mut spread = Spread {
            values: Tensor::from_data(self.data, (device, DType::F32)),
            at: 0,
            of: &self.of,
            grads: &mut grads,
        };
        adapted.visit(&mut spread);
        grads
    }
}

/// The copy of `adapted` that `device`, of another machine, kept from the last step, or a new one.
pub fn copy<M>(adapted: &Adapted<M>, home: &Device, device: &Device, kept: &mut Kept) -> Adapted<M>
where
    M: Module + ModuleDisplay + 'static,
{
    let known = kept.as_ref().and_then(|kept| kept.downcast_ref::<Adapted<M>>());
    known.cloned().unwrap_or_else(|| {
        let copy = replica(adapted, home, device);
        *kept = Some(Box::new(copy.clone()));
        copy
    })
}

/// A copy of `adapted` on another machine's `device`, or of one from there: all of it moves, which takes as long as the
/// network needs for it. Between two machines it goes by way of this one.
fn replica<M: Module + ModuleDisplay>(adapted: &Adapted<M>, from: &Device, to: &Device) -> Adapted<M> {
    let adapted = adapted.clone();
    if !(is_remote(from) && is_remote(to)) {
        return adapted.fork(to);
    }
    let here = device(DEFAULT).expect("the feature `remote` brings flex");
    let here = if to.is_autodiff() { here.autodiff() } else { here };
    adapted.fork(&here).fork(to)
}

/// `tensor` on `device`, by way of this machine.
pub fn carried<const D: usize>(tensor: Tensor<D>, device: &Device) -> Tensor<D> {
    let dtype = tensor.dtype();
    Tensor::from_data(tensor.without_autodiff().into_data(), (device, dtype))
}

#[derive(Default)]
struct Gather {
    /// Whose values are wanted; those of the tensors themselves if absent.
    grads: Option<GradientsParams>,
    of: Vec<(ParamId, DType)>,
    parts: Vec<Tensor<1>>,
}

impl Gather {
    fn data(self) -> TensorData {
        match self.parts.is_empty() {
            true => TensorData::new(Vec::<f32>::new(), [0]),
            false => Tensor::cat(self.parts, 0).into_data(),
        }
    }
}

impl ModuleVisitor for Gather {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = match &mut self.grads {
            Some(grads) => grads.remove::<D>(param.id),
            None => Some(param.base().without_autodiff()),
        };
        let Some(value) = value.filter(|value| value.shape().num_elements() > 0) else {
            return;
        };
        self.of.push((param.id, value.dtype()));
        let count = value.shape().num_elements();
        self.parts.push(value.cast(DType::F32).reshape([count]));
    }
}

struct Scatter {
    values: Tensor<1>,
    at: usize,
}

impl ModuleMapper for Scatter {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let Some(value) = taken(&self.values, &mut self.at, tensor.dims()) else {
                return tensor;
            };
            value
                .cast(tensor.dtype())
                .detach()
                .set_require_grad(tensor.is_require_grad())
        })
    }
}

struct Spread<'a> {
    values: Tensor<1>,
    at: usize,
    of: &'a [(ParamId, DType)],
    grads: &'a mut GradientsParams,
}

impl ModuleVisitor for Spread<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // They are in the order of visiting.
        let Some(((id, dtype), rest)) = self.of.split_first() else {
            return;
        };
        if *id != param.id {
            return;
        }
        self.of = rest;
        if let Some(value) = taken::<D>(&self.values, &mut self.at, param.base().dims()) {
            self.grads.register(param.id, value.cast(*dtype));
        }
    }
}

/// The next tensor of that shape, unless it has no element.
fn taken<const D: usize>(values: &Tensor<1>, at: &mut usize, shape: [usize; D]) -> Option<Tensor<D>> {
    let count = shape.iter().product();
    if count == 0 {
        return None;
    }
    let value = values.clone().narrow(0, *at, count).reshape(shape);
    *at += count;
    Some(value)
}

#[cfg(test)]
#[cfg(all(feature = "flex", feature = "ndarray"))]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use wegeft::AdapterConfig;

    use super::*;

    #[derive(Module, Debug)]
    struct Net {
        first: Linear,
        second: Linear,
    }

    struct Shift;

    impl ModuleMapper for Shift {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| {
                let grad = tensor.is_require_grad();
                tensor.add_scalar(0.5).detach().set_require_grad(grad)
            })
        }
    }

    fn gradients(adapted: &Adapted<Net>, device: &Device) -> GradientsParams {
        let bound = adapted.bind();
        let x = Tensor::<2>::from_data([[1.0, -2.0, 0.5, 3.0], [0.0, 1.0, 2.0, -1.0]], device);
        let loss = bound.second.forward(bound.first.forward(x)).square().sum();
        GradientsParams::from_grads(loss.backward(), adapted)
    }

    fn numbers(data: &TensorData) -> Vec<f32> {
        data.iter::<f32>().collect()
    }

    #[test]
    #[allow(deprecated)] // upstream deprecates ndarray
    fn trained_tensors_and_gradients_arrive_on_the_other_device_as_they_were() {
        let (home, away) = (Device::flex().autodiff(), Device::ndarray().autodiff());
        let linear = |bias| LinearConfig::new(4, 4).with_bias(bias).init(&home);
        for config in [
            AdapterConfig::full(),
            AdapterConfig::lora(2).with_target_modules(["first"]),
        ] {
            let net = Net {
                first: linear(false),
                second: linear(true),
            };
            let adapted = config.init(net).unwrap();
            let there = replica(&adapted, &home, &away);
            // A step later at home: what the other device has is old.
            let adapted = adapted.map(&mut Shift);
            let values = Values::of(&adapted);
            assert_ne!(numbers(&Values::of(&there).0), numbers(&values.0));
            let there = values.clone().in_place(there, &away);
            assert_eq!(numbers(&Values::of(&there).0), numbers(&values.0));

            let expected = Gradients::of(&adapted, gradients(&adapted, &home));
            let found = Gradients::of(&there, gradients(&there, &away)).on(&adapted, &home.clone().inner());
            assert_eq!(found.len(), expected.of.len());
            let found = Gradients::of(&adapted, found);
            let pairs = numbers(&found.data).into_iter().zip(numbers(&expected.data));
            assert!(found.of == expected.of && expected.of.len() >= 2);
            for (found, expected) in pairs {
                assert!(
                    (found - expected).abs() <= 1e-4 * expected.abs().max(1.0),
                    "{found} {expected}"
                );
            }
        }
    }

    #[test]
    fn a_tensor_without_a_gradient_gets_none() {
        let device = Device::flex().autodiff();
        let net = Net {
            first: LinearConfig::new(4, 4).init(&device),
            second: LinearConfig::new(4, 4).init(&device),
        };
        let adapted = AdapterConfig::full().init(net).unwrap();
        let all = gradients(&adapted, &device);
        let mut some = GradientsParams::new();
        let id = adapted.backbone().second.weight.id;
        some.register(id, all.get::<2>(id).unwrap());
        let found = Gradients::of(&adapted, some).on(&adapted, &device.inner());
        assert_eq!(found.len(), 1);
        let sum = |grads: &GradientsParams| grads.get::<2>(id).unwrap().sum().into_scalar::<f32>();
        assert_eq!(sum(&found), sum(&all));
    }
}
