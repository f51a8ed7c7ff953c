//! The tasks and examples of `datasets` in a Burn project's own data loader.

use burn::data::dataloader::DataLoaderBuilder;
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::Dataset;
use burn::tensor::{Device, Int, Tensor, TensorData};
use datasets::dataset::{LabelledImage, TrainingImages, questions};
use datasets::language::{Example, Examples, sample as language};
use datasets::{Resize, sample};

/// Images `[batch, 3, size, size]` in 0 to 1 and their labels `[batch]`.
#[derive(Clone, Debug)]
struct Batch {
    images: Tensor<4>,
    labels: Tensor<1, Int>,
}

struct ToTensors;

impl Batcher<LabelledImage, Batch> for ToTensors {
    fn batch(&self, items: Vec<LabelledImage>, device: &Device) -> Batch {
        let (count, size) = (items.len(), items[0].size);
        let labels: Vec<i64> = items.iter().map(|item| item.label as i64).collect();
        let pixels: Vec<f32> = items.into_iter().flat_map(|item| item.pixels).collect();
        Batch {
            images: Tensor::from_data(TensorData::new(pixels, [count, 3, size, size]), device) / 255.0,
            labels: Tensor::from_data(TensorData::new(labels, [count]), device),
        }
    }
}

#[test]
fn images_of_a_task() {
    let task = sample::task("digits").expect("a sample task");
    let expected: Vec<i64> = task.train.labels.iter().map(|label| *label as i64).collect();
    let loader = DataLoaderBuilder::new(ToTensors)
        .batch_size(64)
        .set_device(Device::flex())
        .build(task.train);
    let (mut labels, mut greatest) = (Vec::new(), 0.0_f32);
    for batch in loader.iter() {
        let batch = batch.expect("a readable image");
        assert_eq!(batch.images.dims()[1..], [3, sample::SIZE, sample::SIZE]);
        greatest = greatest.max(batch.images.max().into_scalar());
        labels.extend(batch.labels.into_data().iter::<i64>());
    }
    assert_eq!(labels, expected);
    assert_eq!(greatest, 1.0);
}

#[test]
fn training_images_are_drawn_anew_from_each_seed() {
    let mut images = sample::task("textures").expect("a sample task").train;
    images.resize = Resize::Crop;
    let pixels = |seed| {
        let images = images.clone();
        TrainingImages { images, seed }.get(0).expect("a readable image").pixels
    };
    assert_eq!(pixels(1), pixels(1));
    assert!((2..6).any(|seed| pixels(seed) != pixels(1)));
}

#[test]
fn examples_and_questions() {
    let suite = language::arithmetic::suite();
    let count = suite.train.len();
    let examples = Examples::from(suite.train);
    assert_eq!(Dataset::<Example>::len(&examples), count);
    assert!(matches!(examples.get(3), Ok(Example::Instruction { .. })));
    let asked = questions(suite.sets[0].1.clone());
    assert_eq!(asked.get(0).expect("a question"), suite.sets[0].1[0]);
}
