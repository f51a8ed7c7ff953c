use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Tensor};
use wegeft::adapters::BASE;
use wegeft::methods::wegeft::WegeftConfig;
use wegeft::{AdapterConfig, Adapters, Combination, Side};

use crate::net::{Net, close, configs, distance, input, stirred, turn, wegeft};

fn three(device: &Device) -> Adapters<Net> {
    let mut adapters = Adapters::new(Net::new(device));
    let net = adapters.backbone().clone();
    let lora = AdapterConfig::lora(2).with_target_modules(["proj"]);
    adapters.insert("lora", stirred(&lora, &net, device)).unwrap();
    adapters
        .insert("input", stirred(&wegeft(WegeftConfig::new(2)), &net, device))
        .unwrap();
    let output = wegeft(WegeftConfig::new(3).with_side(Side::Output)).with_modules_to_save(["head"]);
    adapters.insert("output", stirred(&output, &net, device)).unwrap();
    adapters
}

#[test]
fn switching_changes_the_function_and_disabling_gives_the_frozen_model() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let mut adapters = three(&device);
    let x = input(2, &device);
    let frozen = adapters.backbone().forward(x.clone());
    assert_eq!(adapters.active().unwrap().0, "lora");
    let mut outputs = Vec::new();
    for name in ["lora", "input", "output"] {
        adapters.switch(name).unwrap();
        let y = adapters.bind().forward(x.clone());
        close(
            y.clone(),
            adapters.get(name).unwrap().merge().unwrap().forward(x.clone()),
            1e-4,
        );
        outputs.push(y);
    }
    outputs.push(frozen.clone());
    for (i, a) in outputs.iter().enumerate() {
        for b in &outputs[..i] {
            assert!(distance(a.clone(), b.clone()) > 1e-3);
        }
    }
    adapters.disable();
    assert_eq!(adapters.bind().forward(x).into_data(), frozen.into_data());
}

#[test]
fn a_mixed_batch_gives_each_row_its_own_adapter() {
    let _turn = turn();
    for device in [Device::flex(), Device::flex().autodiff()] {
        let adapters = three(&Device::flex().autodiff());
        let adapters = if device == Device::flex() {
            adapters.valid()
        } else {
            adapters
        };
        let names = ["input", "output", BASE, "input", "lora", "output"];
        let x = input(names.len(), &device);
        let mixed = adapters.bind_rows(&names).unwrap().forward(x.clone());
        for (row, name) in names.iter().enumerate() {
            let own = match *name {
                BASE => adapters.backbone().clone(),
                name => adapters.get(name).unwrap().bind(),
            };
            close(
                mixed.clone().narrow(0, row, 1),
                own.forward(x.clone().narrow(0, row, 1)),
                1e-5,
            );
        }
    }
}

/// A batch of twice as many examples, whose tokens would be dealt out wrong.
#[test]
fn a_batch_of_another_size_is_refused() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let adapters = three(&device);
    let mixed = adapters.bind_rows(&["lora", "input"]).unwrap();
    for examples in [1, 3, 4] {
        let forward = || mixed.forward(input(examples, &device));
        let panicked = catch_unwind(AssertUnwindSafe(forward)).unwrap_err();
        let said = panicked.downcast_ref::<String>().unwrap();
        assert!(
            said.contains("2 adapter names") && said.contains(&examples.to_string()),
            "{said}"
        );
    }
}

#[test]
fn gradients_of_a_mixed_batch_reach_every_adapter_in_it() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let adapters = three(&device);
    let loss = |names: &[&str], x: Tensor<3>| {
        let loss = adapters.bind_rows(names).unwrap().forward(x).powi_scalar(2).sum();
        let grads = loss.backward();
        let lora = adapters.get("lora").unwrap();
        GradientsParams::from_grads(grads, lora)
    };
    let x = input(4, &device);
    let mixed = loss(&["lora", "input", "lora", BASE], x.clone());
    let rows = Tensor::cat(vec![x.clone().narrow(0, 0, 1), x.narrow(0, 2, 1)], 0);
    let alone = loss(&["lora", "lora"], rows);
    assert!(!mixed.is_empty());
    for param in wegeft::site::params(adapters.get("lora").unwrap().bank()) {
        close(
            mixed.get::<2>(param.id).unwrap(),
            alone.get::<2>(param.id).unwrap(),
            1e-3,
        );
    }
}

/// Counts the values of a module that the handles of another do not share, by their place in memory.
struct Ids(Vec<burn::module::ParamId>);

impl ModuleVisitor for Ids {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.id);
    }
}

#[test]
fn training_moves_the_active_adapter_only_and_the_frozen_parameters_are_the_backbone_s() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let mut adapters = three(&device);
    let x = input(2, &device);
    let before: Vec<_> = ["lora", "input", "output"]
        .map(|name| adapters.get(name).unwrap().bind().forward(x.clone()).into_data())
        .to_vec();
    adapters.switch("output").unwrap();
    let mut optim = AdamWConfig::new().init();
    let loss = adapters.bind().forward(x.clone()).powi_scalar(2).mean();
    let grads = GradientsParams::from_grads(loss.backward(), &adapters);
    adapters = optim.step(0.01, adapters, grads);
    let after = |name: &str| adapters.get(name).unwrap().bind().forward(x.clone()).into_data();
    assert_eq!((after("lora"), after("input")), (before[0].clone(), before[1].clone()));
    assert_ne!(after("output"), before[2]);
    let mut backbone = Ids(Vec::new());
    adapters.backbone().visit(&mut backbone);
    for (name, own) in [("lora", 0), ("input", 0), ("output", 2)] {
        let mut ids = Ids(Vec::new());
        adapters.get(name).unwrap().backbone().visit(&mut ids);
        let fresh = ids.0.iter().filter(|id| !backbone.0.contains(id)).count();
        assert_eq!(fresh, own, "{name}: only a head of its own may differ");
    }
    // A record holds the active adapter only, and loads into it.
    let record = adapters.clone().into_record();
    assert_eq!(record.len(), 8); // phi and psi of three groups, weight and bias of the head
    let mut loaded = three(&device);
    loaded.switch("output").unwrap();
    assert!(loaded.try_load_record(record).is_ok());
}

#[test]
fn a_move_to_a_device_keeps_every_adapter() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let mut adapters = three(&device);
    let x = input(2, &device);
    let expected = adapters.bind_rows(&["input", "output"]).unwrap().forward(x.clone());
    adapters = adapters.fork(&device);
    let moved = adapters.bind_rows(&["input", "output"]).unwrap().forward(x);
    close(expected, moved, 1e-6);
}

#[test]
fn weighted_sums_follow_peft() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let net = Net::new(&device);
    let mut adapters = Adapters::new(net.clone());
    let lora = AdapterConfig::lora(2).with_target_modules(["proj"]);
    for name in ["a", "b"] {
        adapters.insert(name, stirred(&lora, &net, &device)).unwrap();
    }
    let weights = [("a", 0.7), ("b", -0.4)];
    let residual = |adapters: &Adapters<Net>, name: &str| {
        let merged = adapters.get(name).unwrap().merge().unwrap();
        merged.blocks[1].proj.weight.val() - net.blocks[1].proj.weight.val()
    };
    let exact = residual(&adapters, "a").mul_scalar(0.7) + residual(&adapters, "b").mul_scalar(-0.4);
    adapters.add_weighted("cat", &weights, Combination::Cat).unwrap();
    close(residual(&adapters, "cat"), exact.clone(), 1e-5);
    adapters
        .add_weighted("svd", &weights, Combination::Svd { rank: Some(4) })
        .unwrap();
    close(residual(&adapters, "svd"), exact.clone(), 1e-5);
    adapters
        .add_weighted("svd1", &weights, Combination::Svd { rank: Some(1) })
        .unwrap();
    let best = distance(residual(&adapters, "svd1"), exact.clone());
    assert!(best > 1e-4 && best < distance(exact.clone(), exact.zeros_like()));
    // Linear: the factors are summed, each with the root of its weight, the sign on A.
    adapters.add_weighted("linear", &weights, Combination::Linear).unwrap();
    let low = |name: &str| {
        adapters
            .get(name)
            .unwrap()
            .low_rank()
            .unwrap()
            .remove("blocks.1.proj")
            .unwrap()
    };
    let (a, b) = (low("a"), low("b"));
    let (wa, wb) = (0.7f64.sqrt(), 0.4f64.sqrt());
    close(low("linear").a, a.a.mul_scalar(wa) - b.a.mul_scalar(wb), 1e-5);
    close(low("linear").b, a.b.mul_scalar(wa) + b.b.mul_scalar(wb), 1e-5);
    assert_eq!(
        adapters.get("cat").unwrap().low_rank().unwrap()["blocks.0.proj"]
            .a
            .dims(),
        [4, 8]
    );
}

#[test]
fn bad_requests_are_named() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let mut adapters = three(&device);
    let message = |result: Result<(), wegeft::AdapterError>| result.unwrap_err().to_string();
    assert!(message(adapters.switch("birds")).contains("known are lora, input, output"));
    let lora = AdapterConfig::lora(2).with_target_modules(["proj"]);
    assert!(message(adapters.add("lora", &lora)).contains("taken"));
    assert!(message(adapters.add(BASE, &lora)).contains("backbone"));
    assert!(adapters.bind_rows(&["lora", "birds"]).is_err() && adapters.bind_rows(&[]).is_err());
    let weights = [("lora", 1.0), ("output", 1.0)];
    assert!(message(adapters.add_weighted("sum", &weights, Combination::Linear)).contains("equal ranks"));
    assert!(message(adapters.add_weighted("sum", &[], Combination::Cat)).contains("at least one"));
    let sigmoid = &configs()[4].0;
    adapters.add("full", &AdapterConfig::full()).unwrap();
    assert!(
        message(adapters.add_weighted("sum", &[("full", 1.0)], Combination::Cat)).contains("cannot be written as LoRA")
    );
    adapters.add("sigmoid", sigmoid).unwrap();
    assert!(adapters.bind_rows(&["sigmoid", "lora"]).is_ok());
    let removed = adapters.remove("lora").unwrap();
    assert!(adapters.active().is_none() && removed.bank().factors.len() == 2);
}
