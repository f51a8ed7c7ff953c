//! WeGeFT on a causal decoder block whose q, k and v share one generator, and the adapter exported for PEFT:
//! `cargo run -p wegeft --example decoder_block`.

use burn::module::Module;
use burn::nn::attention::generate_autoregressive_mask;
use burn::nn::{Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::activation::{silu, softmax};
use burn::tensor::{Device, Distribution, Tensor};
use wegeft::methods::wegeft::WegeftConfig;
use wegeft::{AdapterConfig, AdapterError, Sharing, linear, linear_many};

const D: usize = 32;

#[derive(Module, Debug)]
struct Block {
    attn_norm: RmsNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    mlp_norm: RmsNorm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Block {
    fn new(device: &Device) -> Self {
        let layer = |d_in, d_out| LinearConfig::new(d_in, d_out).with_bias(false).init(device);
        let norm = || RmsNormConfig::new(D).init(device);
        Self {
            attn_norm: norm(),
            q_proj: layer(D, D),
            k_proj: layer(D, D),
            v_proj: layer(D, D),
            o_proj: layer(D, D),
            mlp_norm: norm(),
            gate_proj: layer(D, 4 * D),
            up_proj: layer(D, 4 * D),
            down_proj: layer(4 * D, D),
        }
    }

    /// `x`: `[batch, tokens, d_model]`.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, _] = x.dims();
        // q, k and v read one input: a generator that they share edits it once.
        let [q, k, v] = linear_many(
            [&self.q_proj, &self.k_proj, &self.v_proj],
            self.attn_norm.forward(x.clone()),
        );
        let mask = generate_autoregressive_mask(batch, tokens, &x.device());
        let scores = q.matmul(k.transpose()).div_scalar((D as f64).sqrt());
        let attention = softmax(scores.mask_fill(mask, f32::NEG_INFINITY), 2).matmul(v);
        let x = x + linear(&self.o_proj, attention);
        let [gate, up] = linear_many([&self.gate_proj, &self.up_proj], self.mlp_norm.forward(x.clone()));
        x + linear(&self.down_proj, silu(gate) * up)
    }
}

fn main() -> Result<(), AdapterError> {
    let device = Device::flex().autodiff();
    device.seed(0);
    let groups = ["q_proj|k_proj|v_proj", "up_proj|gate_proj", "down_proj"]
        .map(String::from)
        .to_vec();
    let method = WegeftConfig::new(4).with_sharing(Sharing::Groups(groups));
    let config = AdapterConfig::new(method).with_target_regex("[qkv]_proj|up_proj|gate_proj|down_proj");
    let mut adapted = config.init(Block::new(&device))?;
    println!("{}", adapted.summary());

    let x = Tensor::random([8, 12, D], Distribution::Normal(0.0, 1.0), &device);
    let next = x.clone().roll_dim(1, 1); // each token is to give the one before it
    let mut optim = adapted.optimizer(0.0, None, |decay| AdamWConfig::new().with_weight_decay(decay).build());
    for step in 0..=60 {
        let loss = (adapted.bind().forward(x.clone()) - next.clone()).powi_scalar(2).mean();
        if step % 20 == 0 {
            println!("step {step}: loss {:.4}", loss.clone().into_scalar::<f32>());
        }
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        adapted = optim.step(0.01, adapted, grads);
    }

    let folder = std::env::temp_dir().join("wegeft-decoder-block");
    adapted.export_lora(&folder)?;
    println!("standard LoRA, as PEFT reads it: {}", folder.display());
    let lora = wegeft::read_config(&folder)?.init(Block::new(&device))?.summary();
    println!(
        "{} values as LoRA, {} as WeGeFT",
        lora.adapter_params,
        adapted.summary().adapter_params
    );
    Ok(())
}
