//! An adapted model on several devices.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::{Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Device, Tensor};
use wegeft::linear;
use wegeft::methods::wegeft::WegeftConfig;

use crate::net::{D, close, input, turn, wegeft};

/// Counts how often it is moved to another device, as a weight is.
#[derive(Debug, Clone)]
struct Counted(Linear, Arc<AtomicUsize>);

impl Module for Counted {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.0.collect_devices(devices)
    }
    fn fork(self, device: &Device) -> Self {
        if self.0.devices() != [device.clone()] {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
        Self(self.0.fork(device), self.1)
    }
    fn to_device(self, device: &Device) -> Self {
        Self(self.0.to_device(device), self.1)
    }
    fn train(self) -> Self {
        Self(self.0.train(), self.1)
    }
    fn valid(&self) -> Self {
        Self(self.0.valid(), self.1.clone())
    }
    fn materialize(self) -> Self {
        Self(self.0.materialize(), self.1)
    }
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.0.visit(visitor);
    }
    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        Self(self.0.map(mapper), self.1)
    }
    fn try_load_record(self, record: ModuleRecord) -> Result<Self, RecordError> {
        Ok(Self(self.0.try_load_record(record)?, self.1))
    }
}

impl ModuleDisplayDefault for Counted {
    fn content(&self, content: Content) -> Option<Content> {
        content.optional()
    }
}

impl ModuleDisplay for Counted {}

#[derive(Module, Debug)]
struct Frozen {
    body: Counted,
    head: Linear,
}

impl Frozen {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        linear(&self.head, linear(&self.body.0, x))
    }
}

// Another backend is another device, and the CPU has two of them.
#[test]
#[allow(deprecated)] // upstream deprecates ndarray
fn what_is_frozen_moves_to_a_device_once_and_what_is_trained_at_every_step() {
    let _turn = turn();
    let (here, there) = (Device::flex().autodiff(), Device::ndarray().autodiff());
    let moves = Arc::new(AtomicUsize::new(0));
    let net = Frozen {
        body: Counted(LinearConfig::new(D, D).init(&here), moves.clone()),
        head: LinearConfig::new(D, 3).init(&here),
    };
    let config = wegeft(WegeftConfig::new(2)).with_target_modules(["body"]);
    let mut adapted = config.with_modules_to_save(["head"]).init(net).unwrap();
    let mut optim = SgdConfig::new().init();
    let x = input(4, &here);
    for _ in 0..4 {
        let away = adapted.clone().fork(&there);
        let theirs = away.bind().forward(x.clone().to_device(&there)).powi_scalar(2).mean();
        let ours = adapted.bind().forward(x.clone()).powi_scalar(2).mean();
        let grads = GradientsParams::from_grads(theirs.backward(), &away).to_device(&here.clone().inner(), &adapted);
        let own = GradientsParams::from_grads(ours.backward(), &adapted);
        assert_eq!((grads.len(), own.len()), (4, 4)); // phi and psi, weight and bias of the head
        for param in wegeft::site::params(adapted.bank()) {
            let of = |grads: &GradientsParams| grads.get::<2>(param.id).unwrap();
            close(of(&grads), of(&own), 1e-5);
        }
        close(theirs.inner().to_device(&here.clone().inner()), ours.inner(), 1e-5);
        // Trained, so that the next fork has to bring what is new.
        adapted = optim.step(0.1, adapted, grads);
    }
    assert_eq!(moves.load(Ordering::Relaxed), 1);
    // Without autodiff it is another copy, and another adapted model has its own.
    assert_eq!(
        adapted
            .clone()
            .fork(&there.clone().inner())
            .backbone()
            .body
            .1
            .load(Ordering::Relaxed),
        2
    );
    adapted.valid().fork(&there.inner());
    assert_eq!(moves.load(Ordering::Relaxed), 3);
}
