//! What the learner trains: an adapted vision transformer with cross-entropy.

use backbones::Vit;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::activation::log_softmax;
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use wegeft::Adapted;

use crate::batches::Batch;

/// An adapted ViT.
#[derive(Debug, Clone)]
pub struct Classifier(pub Adapted<Vit>);

impl Classifier {
    fn classify(&self, batch: Batch) -> ClassificationOutput {
        let model = self.0.bind();
        let logits = batch.input.logits(&model);
        let loss = match batch.shares {
            // Cross-entropy with a share of each class.
            Some(shares) => (log_softmax(logits.clone(), 1) * shares).sum_dim(1).mean().neg(),
            None => CrossEntropyLossConfig::new()
                .init(&logits.device())
                .forward(logits.clone(), batch.labels.clone()),
        };
        ClassificationOutput::new(loss, logits, batch.labels)
    }
}

impl TrainStep for Classifier {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Classifier {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.classify(batch)
    }
}

// The adapted model decides what a record holds, so every method goes straight to it.
impl Module for Classifier {
    fn collect_devices(&self, devices: burn::module::Devices) -> burn::module::Devices {
        self.0.collect_devices(devices)
    }
    fn fork(self, device: &burn::tensor::Device) -> Self {
        Self(self.0.fork(device))
    }
    fn to_device(self, device: &burn::tensor::Device) -> Self {
        Self(self.0.to_device(device))
    }
    fn train(self) -> Self {
        Self(self.0.train())
    }
    fn valid(&self) -> Self {
        Self(self.0.valid())
    }
    fn materialize(self) -> Self {
        Self(self.0.materialize())
    }
    fn visit<V: burn::module::ModuleVisitor>(&self, visitor: &mut V) {
        self.0.visit(visitor);
    }
    fn map<M: burn::module::ModuleMapper>(self, mapper: &mut M) -> Self {
        Self(self.0.map(mapper))
    }
    fn into_record(self) -> burn::store::ModuleRecord {
        self.0.into_record()
    }
    fn try_load_record(self, record: burn::store::ModuleRecord) -> Result<Self, burn::store::RecordError> {
        self.0.try_load_record(record).map(Self)
    }
}

impl burn::module::ModuleDisplayDefault for Classifier {
    fn content(&self, content: burn::module::Content) -> Option<burn::module::Content> {
        self.0.content(content)
    }
}

impl burn::module::ModuleDisplay for Classifier {}

// burn-train shows the learner's model in its summary.
impl std::fmt::Display for Classifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.summary().fmt(f)
    }
}
