//! A LoRA adapter that HF PEFT saved (fixtures/make.py): read, run, differentiated, written again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backbones::{Vit, load_vit};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Int, Tensor, TensorData, Tolerance};
use wegeft::storage::{Stored, read_tensors};
use wegeft::{Adapted, AdapterConfig, read_config};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/peft")
}

fn expected() -> BTreeMap<String, Stored> {
    read_tensors(&folder().join("expected.safetensors")).unwrap()
}

fn tensor<const D: usize>(stored: &Stored, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(stored.values.clone(), stored.shape.clone()), device)
}

fn adapted(device: &Device) -> Adapted<Vit> {
    let model = load_vit(&folder(), None, 0.0, device).unwrap().model;
    let config = read_config(folder()).unwrap();
    config.init(model).unwrap().load_weights(folder()).unwrap()
}

fn close<const D: usize>(ours: Tensor<D>, theirs: &Stored) {
    let theirs: Tensor<D> = tensor(theirs, &ours.device());
    ours.into_data()
        .assert_approx_eq::<f32>(&theirs.into_data(), Tolerance::absolute(2e-5));
}

#[test]
fn peft_s_adapter_gives_peft_s_logits_bound_and_merged() {
    let device = Device::flex();
    let (adapted, expected) = (adapted(&device), expected());
    let pixels: Tensor<4> = tensor(&expected["pixel_values"], &device);
    close(adapted.bind().forward(pixels.clone()), &expected["logits"]);
    close(adapted.merge().unwrap().forward(pixels), &expected["logits"]);
}

#[test]
fn peft_s_adapter_gives_peft_s_gradients() {
    let device = Device::flex().autodiff();
    let (adapted, expected) = (adapted(&device), expected());
    let logits = adapted.bind().forward(tensor(&expected["pixel_values"], &device));
    let labels = Tensor::<1, Int>::from_ints([1, 3], &device);
    let loss = CrossEntropyLossConfig::new().init(&device).forward(logits, labels);
    close(loss.clone(), &expected["loss"]);
    let grads = loss.backward();
    let mut compared = 0;
    for (group, factors) in adapted.bank().groups().iter().zip(&adapted.bank().factors) {
        let module = group.sites[0].module();
        for (name, letter) in [("a", "A"), ("b", "B")] {
            let theirs = &expected[&format!("grad.base_model.model.{module}.lora_{letter}.weight")];
            close(factors.matrix(name).grad(&grads).unwrap(), theirs);
            compared += 1;
        }
    }
    let head = adapted.backbone().head.as_ref().unwrap();
    // PyTorch stores a linear weight transposed.
    close(
        head.weight.val().grad(&grads).unwrap().transpose(),
        &expected["grad.base_model.model.head.weight"],
    );
    assert_eq!(compared, 8);
}

#[test]
fn what_is_written_is_what_peft_wrote() {
    let dir = tempfile::tempdir().unwrap();
    adapted(&Device::flex()).save(dir.path()).unwrap();
    let file = "adapter_model.safetensors";
    assert_eq!(
        read_tensors(&dir.path().join(file)).unwrap(),
        read_tensors(&folder().join(file)).unwrap()
    );
    // And the names that a WeGeFT adapter exports are of the same kind.
    let device = Device::flex();
    let config = AdapterConfig::wegeft(3)
        .with_target_modules(["attn.qkv", "attn.proj"])
        .with_modules_to_save(["head"]);
    let wegeft = config
        .init(load_vit(&folder(), None, 0.0, &device).unwrap().model)
        .unwrap();
    wegeft.export_lora(dir.path().join("lora")).unwrap();
    let exported = read_tensors(&dir.path().join("lora").join(file)).unwrap();
    let theirs = read_tensors(&folder().join(file)).unwrap();
    let shapes = |tensors: &BTreeMap<String, Stored>| -> Vec<(String, Vec<usize>)> {
        tensors
            .iter()
            .map(|(name, stored)| (name.clone(), stored.shape.clone()))
            .collect()
    };
    assert_eq!(shapes(&exported), shapes(&theirs));
}

#[test]
fn a_variant_that_is_not_implemented_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(folder().join("adapter_config.json")).unwrap();
    for (field, off, on) in [
        ("use_qalora", "false", "true"),
        ("init_lora_weights", "true", "\"loftq\""),
    ] {
        let changed = text.replace(&format!("\"{field}\": {off}"), &format!("\"{field}\": {on}"));
        assert_ne!(changed, text, "{field}");
        std::fs::write(dir.path().join("adapter_config.json"), changed).unwrap();
        let message = read_config(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains("adapter_config.json") && message.contains(field),
            "{message}"
        );
    }
}
