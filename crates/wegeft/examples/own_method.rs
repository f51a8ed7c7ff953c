//! A method of your own, with everything that the library does for its built-in methods: targets, training, files, merging.
//! `cargo run -p wegeft --example own_method`.

use std::sync::Arc;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wegeft::{AdapterConfig, Edit, Factors, Group, Init, Method, Spec, read, read_config_with, settings};

/// A rank-1 update with a learned strength: `W' = W + strength·u vᵀ`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RankOne {
    std: f64,
}

impl Method for RankOne {
    fn name(&self) -> &'static str {
        "RANK_ONE"
    }

    fn settings(&self) -> Map<String, Value> {
        settings(self)
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        let site = group.site();
        vec![
            Spec::new("u", "rank_one_u", [site.d_in]).with_init(Init::Normal(self.std)),
            Spec::new("v", "rank_one_v", [site.d_out]).with_init(Init::Normal(self.std)),
            // Zero, so that a fresh adapter changes nothing.
            Spec::new("strength", "rank_one_strength", [1]),
        ]
    }

    fn bind(&self, _group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        Arc::new(BoundRankOne {
            u: factors.vector("u"),
            v: factors.vector("v"),
            strength: factors.vector("strength"),
        })
    }
}

#[derive(Debug)]
struct BoundRankOne {
    u: Tensor<1>,
    v: Tensor<1>,
    strength: Tensor<1>,
}

impl Edit for BoundRankOne {
    fn residual(&self, _weight: Tensor<2>) -> Tensor<2> {
        let scaled = self.v.clone() * self.strength.clone();
        self.u.clone().unsqueeze_dim::<2>(1).matmul(scaled.unsqueeze_dim(0))
    }
}

#[derive(Module, Debug)]
struct Model {
    proj: Linear,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex().autodiff();
    device.seed(0);
    let model = Model {
        proj: LinearConfig::new(6, 3).init(&device),
    };
    let config = AdapterConfig::new(RankOne { std: 0.3 }).with_target_modules(["proj"]);
    let mut adapted = config.init(model.clone())?;
    println!("{}", adapted.summary());

    let mut optim = AdamWConfig::new().init();
    let x = Tensor::<2>::random([64, 6], Distribution::Normal(0.0, 1.0), &device);
    let y = model.proj.forward(x.clone()).detach() + x.clone().narrow(1, 0, 1);
    for step in 0..=150 {
        let loss = (adapted.bind().proj.forward(x.clone()) - y.clone())
            .powi_scalar(2)
            .mean();
        if step % 50 == 0 {
            println!("step {step}: loss {:.5}", loss.clone().into_scalar::<f32>());
        }
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        adapted = optim.step(0.03, adapted, grads);
    }

    let folder = std::env::temp_dir().join("wegeft-example-own-method");
    adapted.save(&folder)?;
    // A folder is read with the library's methods and those that are named here.
    let loaded = read_config_with(&folder, &[("RANK_ONE", read::<RankOne>)])?.load(model, &folder)?;
    let merged = loaded.merge()?;
    let loss = (merged.proj.forward(x) - y).powi_scalar(2).mean();
    println!("saved, loaded, merged: loss {:.5}", loss.into_scalar::<f32>());
    Ok(())
}
