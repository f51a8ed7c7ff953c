//! WeGeFT on a pretrained vision transformer folder:
//! `cargo run -p wegeft-backbones --example vit --features flex -- datasets/backbone`.

use std::path::PathBuf;

use backbones::load_vit;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use wegeft::AdapterConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args()
        .nth(1)
        .map_or_else(|| PathBuf::from("datasets/backbone"), PathBuf::from);
    let device = Device::flex().autodiff();
    let pretrained = load_vit(&folder, None, 0.0, &device)?;
    let size = pretrained.config.image_size;
    let config = AdapterConfig::wegeft(16)
        .with_target_modules(["attn.proj"])
        .with_modules_to_save(["head"]);
    let adapted = config.init(pretrained.model.with_head(10, &device))?;
    println!("{}", adapted.summary());
    // Training: `adapted.with_loss(..)` with burn-train's Learner, as `experiments/src/training.rs` does.
    let model = adapted.valid().bind();
    let logits = model.forward(Tensor::zeros([1, 3, size, size], &device.inner()));
    println!("logits of a grey image: {}", logits.into_data());
    Ok(())
}
