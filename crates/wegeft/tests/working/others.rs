//! Models that were written for plain Burn, with every method that fits them: adapted, trained by burn-train's learner, saved,
//! merged, and loaded in a new process.

use std::fs;
use std::path::Path;
use std::process::Command;

use burn::data::dataloader::DataLoaderBuilder;
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::AdamWConfig;
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, Device, Tensor, TensorData};
use burn::train::metric::LossMetric;
use burn::train::{ClassificationOutput, InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep};
use wegeft::methods::lora_init::LoraInit;
use wegeft::{
    AdaLoraConfig, Adapted, AdapterConfig, AdapterError, BoftConfig, HiraConfig, LohaConfig, LokrConfig, LoraConfig,
    MissConfig, OftConfig, Sharing, WegeftConfig,
};

use crate::learner::Silent;
use crate::models::albert::Albert;
use crate::models::bert::Bert;
use crate::models::encoder::Encoder;
use crate::models::llama::Llama;
use crate::models::lstm::LstmClassifier;
use crate::models::recurrent::Recurrent;
use crate::models::resnet::ResNet;
use crate::models::{Batch, CLASSES, Model};
use crate::net::turn;

/// Folder of what the first process wrote.
const FOLDER: &str = "WEGEFT_TEST_FOLDER";
const ROWS: u32 = 16;

/// A model with steps of its own, as burn-train wants them.
#[derive(Module, Debug)]
struct Classifier<M: Model> {
    net: M,
}

impl<M: Model> Classifier<M> {
    fn outputs(&self, batch: &Batch) -> ClassificationOutput {
        let logits = self.net.logits(batch);
        let loss = CrossEntropyLossConfig::new().init(&logits.device());
        let loss = loss.forward(logits.clone(), batch.labels.clone());
        ClassificationOutput::new(loss, logits, batch.labels.clone())
    }
}

impl<M: Model> TrainStep for Classifier<M> {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let outputs = self.outputs(&batch);
        TrainOutput::new(self, outputs.loss.backward(), outputs)
    }
}

impl<M: Model> InferenceStep for Classifier<M> {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.outputs(&batch)
    }
}

#[derive(Clone)]
struct Examples;

impl Batcher<u32, Batch> for Examples {
    fn batch(&self, items: Vec<u32>, device: &Device) -> Batch {
        let (n, tokens) = (items.len(), 6);
        let rows = |length: u32| items.iter().flat_map(move |item| (0..length).map(move |k| (item, k)));
        let ids = rows(tokens).map(|(item, k)| i64::from((item * 7919 + k * k * 31 + item * k) % 59 + 1));
        let images = rows(3 * 64).map(|(item, k)| ((item * 13 + k) as f32 * 0.7).sin());
        let labels = items.iter().map(|item| i64::from(item % CLASSES as u32));
        let data = |values: Vec<i64>, shape: Vec<usize>| TensorData::new(values, shape);
        Batch {
            ids: Tensor::from_data(data(ids.collect(), vec![n, tokens as usize]), device),
            images: Tensor::from_data(TensorData::new(images.collect::<Vec<_>>(), [n, 3, 8, 8]), device),
            labels: Tensor::from_data(data(labels.collect(), vec![n]), device),
        }
    }
}

fn probe() -> Batch {
    Examples.batch((0..5).collect(), &Device::flex())
}

/// Every method, on the model's linear layers where it takes targets, and what the model adds.
fn configs<M: Model>() -> Vec<(&'static str, AdapterConfig)> {
    let on = |config: AdapterConfig| config.with_target_modules(M::LINEAR.iter().copied());
    let wegeft = WegeftConfig::new(2).with_sharing(Sharing::Site).with_dropout(0.1);
    let all = AdapterConfig::lora(2).with_target_regex("all-linear");
    let mut configs = vec![
        ("wegeft", on(AdapterConfig::wegeft(2))),
        ("wegeft by site", on(AdapterConfig::new(wegeft))),
        ("lora", on(AdapterConfig::lora(2))),
        ("lora all-linear", all.with_exclude_modules([M::HEAD])),
        (
            "pissa",
            on(AdapterConfig::new(LoraConfig::new(2).with_init(LoraInit::Pissa))),
        ),
        ("dora", on(AdapterConfig::dora(2))),
        ("vera", on(AdapterConfig::vera(4))),
        ("ia3", on(AdapterConfig::ia3([M::LINEAR[0]]))),
        ("adalora", on(AdapterConfig::new(AdaLoraConfig::new(4, 2, 10)))),
        ("loha", on(AdapterConfig::new(LohaConfig::new(2)))),
        ("lokr", on(AdapterConfig::new(LokrConfig::new(2)))),
        ("oft", on(AdapterConfig::new(OftConfig::new(4)))),
        ("boft", on(AdapterConfig::new(BoftConfig::new(4, 1)))),
        ("miss", on(AdapterConfig::new(MissConfig::new(2)))),
        ("hira", on(AdapterConfig::new(HiraConfig::new(2)))),
        ("bitfit", AdapterConfig::bitfit()),
        ("layer norm", AdapterConfig::layer_norm()),
        ("linear probing", AdapterConfig::linear_probing()),
        ("full", AdapterConfig::full()),
    ];
    if M::HEAD == "mlm_layer_norm" {
        configs.retain(|(name, _)| *name != "lora all-linear");
    }
    if M::BIASES {
        let lora = LoraConfig::new(2).with_lora_bias(true);
        configs.push(("lora with biases", on(AdapterConfig::new(lora))));
    }
    configs.extend(M::more());
    for (name, config) in &mut configs {
        if *name != "full" && config.targets.modules_to_save.is_empty() {
            config.targets.modules_to_save = vec![M::HEAD.to_string()];
        }
    }
    configs
}

fn trained<M: Model>(adapted: Adapted<Classifier<M>>) -> Adapted<Classifier<M>> {
    let device = Device::flex().autodiff();
    let loader = |device: &Device| {
        DataLoaderBuilder::new(Examples)
            .batch_size(8)
            .set_device(device.clone())
            .build(InMemDataset::new((0..ROWS).collect()))
    };
    let optimizer = adapted.optimizer(0.01, None, |decay| AdamWConfig::new().with_weight_decay(decay).build());
    let rates = adapted.learning_rates(2e-2);
    let folder = tempfile::tempdir().unwrap();
    let training = SupervisedTraining::new(folder.path(), loader(&device), loader(&Device::flex()))
        .metrics((LossMetric::new(),))
        .with_application_logger(None)
        .renderer(Box::new(Silent))
        .num_epochs(1);
    let result = training.launch(Learner::new(adapted, optimizer, rates));
    assert!(result.error.is_none(), "{:?}", result.error);
    result.model
}

fn bits(logits: Tensor<2>) -> Vec<u8> {
    let data = logits.into_data();
    data.iter::<f32>().flat_map(f32::to_le_bytes).collect()
}

/// Trains with every method into `folder`; the number of methods that fit.
fn train<M: Model>(folder: &Path) -> usize {
    let folder = folder.join(M::NAME);
    fs::create_dir_all(&folder).unwrap();
    let probe = probe();
    let model = Classifier {
        net: M::new(&Device::flex().autodiff()),
    };
    // A forward pass draws what is drawn at its first use.
    let frozen = model.valid().net.logits(&probe);
    let record = model.clone().into_record().into_bytes().unwrap();
    fs::write(folder.join("model"), &record[..]).unwrap();
    let mut fitting = 0;
    for (name, config) in configs::<M>() {
        let what = format!("{}, {name}", M::NAME);
        let adapted = match config.init(model.clone()) {
            Ok(adapted) => adapted,
            // A model without norms, or without biases.
            Err(AdapterError::NoPlace { .. }) if ["bitfit", "layer norm"].contains(&name) => continue,
            Err(error) => panic!("{what}: {error}"),
        };
        let distance = |a: &Tensor<2>, b: &Tensor<2>| (a.clone() - b.clone()).abs().max().into_scalar::<f32>();
        let fresh = adapted.valid().bind().net.logits(&probe);
        assert!(distance(&fresh, &frozen) < 1e-5, "{what}: starts as another model");
        let adapted = trained(adapted).valid();
        let outputs = adapted.bind().net.logits(&probe);
        assert!(distance(&outputs, &frozen) > 1e-3, "{what}: learned nothing");
        let merged = adapted.merge().unwrap().net.logits(&probe);
        assert!(distance(&merged, &outputs) < 1e-5, "{what}: merged to another model");
        adapted.save(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("outputs"), bits(outputs)).unwrap();
        fitting += 1;
    }
    assert_eq!(
        bits(model.valid().net.logits(&probe)),
        bits(frozen),
        "{}: the backbone changed",
        M::NAME
    );
    fitting
}

/// Loads what [`train`] saved on a backbone of other random numbers, filled from its record.
fn load<M: Model>(folder: &Path) {
    let folder = folder.join(M::NAME);
    for (name, _) in configs::<M>() {
        let Ok(outputs) = fs::read(folder.join(name).join("outputs")) else {
            continue;
        };
        let record = Bytes::from_bytes_vec(fs::read(folder.join("model")).unwrap());
        let model = Classifier {
            net: M::new(&Device::flex()),
        };
        let model = model.load_record(ModuleRecord::from_bytes(record).unwrap());
        let adapted = Adapted::load(model, folder.join(name)).unwrap();
        let loaded = bits(adapted.bind().net.logits(&probe()));
        assert!(loaded == outputs, "{}, {name}: other outputs after loading", M::NAME);
    }
}

#[test]
fn models_of_other_projects_train_save_merge_and_load() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let fitting = [
        train::<Encoder>(path),
        train::<LstmClassifier>(path),
        train::<Recurrent>(path),
        train::<ResNet>(path),
        train::<Bert>(path),
        train::<Llama>(path),
        train::<Albert>(path),
    ];
    assert_eq!(fitting, [22, 19, 20, 22, 21, 18, 22]);
    let test = std::env::current_exe().unwrap();
    let arguments = ["--ignored", "--exact", "others::what_the_first_process_saved_loads"];
    let process = Command::new(test).args(arguments).env(FOLDER, path).output().unwrap();
    let printed = String::from_utf8_lossy(&process.stdout);
    assert!(process.status.success() && printed.contains("1 passed"), "{printed}");
}

#[test]
#[ignore = "the second process of the test above"]
fn what_the_first_process_saved_loads() {
    let folder = std::env::var(FOLDER).unwrap();
    let path = Path::new(&folder);
    load::<Encoder>(path);
    load::<LstmClassifier>(path);
    load::<Recurrent>(path);
    load::<ResNet>(path);
    load::<Bert>(path);
    load::<Llama>(path);
    load::<Albert>(path);
}
