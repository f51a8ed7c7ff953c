//! A single adapted layer, forward and backward.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Distribution, Tensor};
use wegeft::Adapters;

use super::choice::{Method, Work};
use super::products::Product;
use super::{Args, Workload};

/// Width of the layer, as in ViT-S.
pub const WIDTH: usize = 384;
/// Tokens of an image.
pub const TOKENS: usize = 197;

#[derive(Module, Debug)]
struct Layer {
    proj: Linear,
}

/// # Errors
/// A method that this workload has not, a rank that is too high.
pub fn workload(args: &Args, method: Method, device: &Device) -> Result<Workload, String> {
    let adapter = method.config(args.r(), ["proj"]);
    let adapter = adapter.ok_or_else(|| Work::Adapter.refusal(method))?;
    let training = device.clone().autodiff();
    let layer = Layer {
        proj: LinearConfig::new(WIDTH, WIDTH).init(&training),
    };
    let mut adapted = Adapters::new(layer);
    if method != Method::Frozen {
        adapted.add(&method.name(), &adapter).map_err(|e| e.to_string())?;
    }
    let batch = args.batch.unwrap_or(super::BATCH);
    let random = || Tensor::<3>::random([batch, TOKENS, WIDTH], Distribution::Normal(0.0, 1.0), device);
    let (x, weights) = (random(), Tensor::from_inner(random()));
    let pass = move || {
        // The layers below an adapted layer need the gradient of its input.
        let x = Tensor::from_inner(x.clone()).require_grad();
        let out = wegeft::linear(&adapted.bind().proj, x.clone());
        let grads = (out * weights.clone()).sum().backward();
        let grad = x.grad(&grads).expect("the input asks for a gradient");
        grad.flatten(0, 2)
    };
    let product = Product {
        count: if method == Method::Full { 3 } else { 2 },
        batch: 1,
        rows: batch * TOKENS,
        depth: WIDTH,
        columns: WIDTH,
    };
    Ok(Workload {
        pass: Box::new(pass),
        products: vec![product],
        batch,
        tokens: TOKENS,
        read_tokens: batch * TOKENS,
        weight_bytes: None,
    })
}
