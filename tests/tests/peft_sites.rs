//! LoRA on what is no linear layer against HF PEFT (fixtures/make_sites.py): an embedding, convolutions, the stacked weights
//! of experts, rows of an embedding, and B with a bias. Outputs, and the adapter after one gradient step.

use std::fs;
use std::path::{Path, PathBuf};

use backbones::lm::{Layout, LoadOptions, load_lm};
use burn::module::{Module, Param};
use burn::nn::conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, PaddingConfig1d, PaddingConfig2d};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::Value;
use wegeft::storage::{CONFIG_FILE, Names, Stored, Tensors, WEIGHTS_FILE, fill, read_tensors, write_tensors};
use wegeft::{Adapted, AdapterError, embedding, linear, site};

#[derive(Module, Debug)]
struct Experts {
    /// `[experts, d_in, d_out]`
    up: Param<Tensor<3>>,
}

#[derive(Module, Debug)]
struct Net {
    embed: Embedding,
    conv1: Conv1d,
    conv2: Conv2d,
    experts: Experts,
    head: Linear,
}

impl Net {
    fn new(weights: &Tensors, device: &Device) -> Self {
        let net = Self {
            embed: EmbeddingConfig::new(12, 6).init(device),
            conv1: Conv1dConfig::new(6, 8, 3)
                .with_padding(PaddingConfig1d::Explicit(1, 1))
                .init(device),
            conv2: Conv2dConfig::new([1, 4], [3, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 0, 1, 0))
                .init(device),
            experts: Experts {
                up: Param::from_tensor(Tensor::zeros([3, 8, 5], device)),
            },
            head: LinearConfig::new(20, 3).init(device),
        };
        let name = |param: site::ParamInfo| (param.path.clone(), (param.clone(), param.torch_name()));
        let names: Names = site::params(&net).into_iter().map(name).collect();
        fill(net, &names, weights)
    }

    /// With `ours`, in activation space where that is possible; without, as a model that knows nothing of adapters.
    fn forward(&self, ids: Tensor<2, Int>, ours: bool) -> Tensor<2> {
        let [batch, tokens] = ids.dims();
        let x = match ours {
            true => embedding(&self.embed, ids),
            false => self.embed.forward(ids),
        };
        let x = self.conv1.forward(x.swap_dims(1, 2)).tanh();
        let x = self.conv2.forward(x.reshape([batch, 1, 8, tokens])).tanh();
        let x = x.mean_dim(3).reshape([1, batch * 4, 8]);
        let each = x.matmul(self.experts.up.val()).tanh();
        let shares = Tensor::<1>::from_floats([1.0, 2.0, 3.0], &each.device()).reshape([3, 1, 1]);
        let x = (each * shares).sum_dim(0).reshape([batch, 20]);
        match ours {
            true => linear(&self.head, x),
            false => self.head.forward(x),
        }
    }
}

fn fixtures(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path)
}

fn under(expected: &Tensors, prefix: &str) -> Tensors {
    let named = expected.iter();
    named
        .filter_map(|(name, stored)| Some((name.strip_prefix(prefix)?.to_string(), stored.clone())))
        .collect()
}

fn close(ours: Tensor<2>, theirs: &Stored, what: &str) {
    assert_eq!(ours.dims()[..], theirs.shape[..], "{what}");
    for (a, b) in ours.into_data().iter::<f32>().zip(&theirs.values) {
        assert!((a - b).abs() < 2e-6, "{what}: {a} against PEFT's {b}");
    }
}

#[test]
fn every_case_agrees_with_peft() {
    let device = Device::flex().autodiff();
    let expected = read_tensors(&fixtures("sites/expected.safetensors")).unwrap();
    let configs: Value = serde_json::from_str(&fs::read_to_string(fixtures("sites/configs.json")).unwrap()).unwrap();
    let ids = &expected["input_ids"];
    let ids = Tensor::<2>::from_data(TensorData::new(ids.values.clone(), ids.shape.clone()), &device).int();
    let configs = configs.as_object().unwrap();
    assert_eq!(configs.len(), 8);
    for (case, config) in configs {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG_FILE), config.to_string()).unwrap();
        let before = under(&expected, &format!("{case}/before/"));
        write_tensors(&folder.path().join(WEIGHTS_FILE), &before).unwrap();
        let net = Net::new(&under(&expected, "model/"), &device);
        let adapted = Adapted::load(net, folder.path()).unwrap();
        let theirs = &expected[&format!("{case}/logits_before")];
        let logits = adapted.bind().forward(ids.clone(), true);
        close(logits.clone(), theirs, case);
        close(adapted.bind().forward(ids.clone(), false), theirs, case);
        let merged = adapted.merge().unwrap();
        close(merged.forward(ids.clone(), false), theirs, case);

        let labels = Tensor::<1, Int>::from_ints([0, 2], &device);
        let loss = CrossEntropyLossConfig::new().init(&device).forward(logits, labels);
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        let adapted = SgdConfig::new().init().step(0.1, adapted, grads);
        let theirs = &expected[&format!("{case}/logits_after")];
        close(adapted.bind().forward(ids.clone(), true), theirs, case);
        adapted.save(folder.path()).unwrap();
        let ours = read_tensors(&folder.path().join(WEIGHTS_FILE)).unwrap();
        let after = under(&expected, &format!("{case}/after/"));
        assert!(ours.keys().eq(after.keys()), "{case}");
        for (name, theirs) in &after {
            assert_eq!(ours[name].shape, theirs.shape, "{case}: {name}");
            for (a, b) in ours[name].values.iter().zip(&theirs.values) {
                assert!((a - b).abs() < 1e-6, "{case}: {name}: {a} against PEFT's {b}");
            }
        }
        assert!(before.iter().all(|(name, stored)| *stored != after[name]), "{case}");
    }
}

/// A layer without a bias gets B's in activation space; nothing can hold it when the adapter is merged.
#[test]
fn a_bias_on_layers_that_have_none() {
    let device = Device::flex();
    let model = load_lm(&fixtures("policy/models/llama"), &LoadOptions::default(), &device).unwrap();
    let adapted = Adapted::load(model.model, fixtures("policy/lora_bias")).unwrap();
    let ids = Tensor::<2, Int>::from_ints([[1, 6, 25, 7, 16, 2, 30], [1, 15, 25, 6, 16, 9, 12]], &device);
    let bound = adapted.bind();
    let logits = bound.logits(bound.hidden(ids, &Layout::dense(2, 7), None));
    let expected = read_tensors(&fixtures("policy/expected.safetensors")).unwrap();
    for (a, b) in logits.into_data().iter::<f32>().zip(&expected["lora_bias"].values) {
        assert!((a - b).abs() < 1e-5, "{a} against PEFT's {b}");
    }
    let refused = adapted.merge().unwrap_err();
    assert!(matches!(refused, AdapterError::NotMergeable { .. }), "{refused}");
    assert!(adapted.export_lora(tempfile::tempdir().unwrap().path()).is_err());
}
