//! Loads a LoRA adapter that Hugging Face PEFT wrote into a Burn model:
//! `cargo run -p wegeft --example peft_adapter -- FOLDER`. Without a folder, the example writes one as PEFT would.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use wegeft::storage::{CONFIG_FILE, Stored, Tensors, WEIGHTS_FILE, write_tensors};
use wegeft::{Adapted, read_config};

/// Named as in the checkpoint: `layers.0.q_proj`.
#[derive(Module, Debug)]
struct Layer {
    q_proj: Linear,
    v_proj: Linear,
}

#[derive(Module, Debug)]
struct Model {
    layers: Vec<Layer>,
}

impl Model {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let layer = |x: Tensor<2>, layer: &Layer| layer.q_proj.forward(x.clone()) + layer.v_proj.forward(x).tanh();
        self.layers.iter().fold(x, layer)
    }
}

/// The two files of a PEFT adapter of rank 2 on `q_proj`. PyTorch stores A as `[r, in]` and B as `[out, r]`.
fn write_as_peft(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(folder)?;
    let config = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}"#;
    std::fs::write(folder.join(CONFIG_FILE), config)?;
    let mut tensors = Tensors::new();
    for layer in 0..2 {
        for (name, shape) in [("lora_A", [2, 8]), ("lora_B", [8, 2])] {
            let values = (0..16).map(|i| (i as f32 + layer as f32).sin() * 0.1).collect();
            let key = format!("base_model.model.layers.{layer}.q_proj.{name}.weight");
            let shape = shape.to_vec();
            tensors.insert(key, Stored { shape, values });
        }
    }
    write_tensors(&folder.join(WEIGHTS_FILE), &tensors)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = match std::env::args_os().nth(1) {
        Some(folder) => PathBuf::from(folder),
        None => {
            let folder = std::env::temp_dir().join("wegeft-example-peft");
            write_as_peft(&folder)?;
            folder
        }
    };
    let device = Device::flex();
    device.seed(0);
    let linear = || LinearConfig::new(8, 8).with_bias(false).init(&device);
    let model = Model {
        layers: (0..2)
            .map(|_| Layer {
                q_proj: linear(),
                v_proj: linear(),
            })
            .collect(),
    };
    println!("{:?}", read_config(&folder)?.targets);
    let adapted = Adapted::load(model.clone(), &folder)?;
    println!("{}", adapted.summary());
    let x = Tensor::ones([1, 8], &device);
    let change = adapted.bind().forward(x.clone()) - model.forward(x.clone());
    println!(
        "largest change of the output: {:.4}",
        change.abs().max().into_scalar::<f32>()
    );
    let merged = adapted.merge()?.forward(x.clone()) - adapted.bind().forward(x);
    println!("merged: differs by {:.1e}", merged.abs().max().into_scalar::<f32>());
    Ok(())
}
