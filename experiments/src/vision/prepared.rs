//! A task that is ready for training: its images, and the outputs of the frozen part of the backbone for them.

use std::sync::{Mutex, PoisonError};

use backbones::{Normalization, Vit};
use burn::tensor::Device;
use datasets::Task;

use crate::cli::interrupt::Interrupter;
use crate::vision::data::LabelledImages;
use crate::vision::prefix::Prefix;

/// A task that several trials share.
pub struct Prepared {
    /// Name.
    pub name: String,
    /// VTAB's group.
    pub group: String,
    /// Name of each class.
    pub classes: Vec<String>,
    /// train800.
    pub train: LabelledImages,
    /// val200.
    pub valid: LabelledImages,
    /// test.
    pub test: LabelledImages,
    frozen: Mutex<Option<(Prefix, [LabelledImages; 2])>>,
}

impl Prepared {
    /// Prepares `task`, whose images are normalised with `normalization`.
    pub fn new(task: Task, normalization: Normalization) -> Self {
        let images = |images| LabelledImages::new(images, normalization);
        Self {
            name: task.name,
            group: task.group,
            classes: task.classes,
            train: images(task.train),
            valid: images(task.valid),
            test: images(task.test),
            frozen: Mutex::new(None),
        }
    }

    /// train800 and val200 with the output of the frozen `prefix` of `model` for each image, which the first trial
    /// computes and later ones share. `device` and `model` are without autodiff.
    ///
    /// # Errors
    /// An error of the loader, an interruption.
    pub fn through(
        &self,
        prefix: Prefix,
        model: &Vit,
        interrupter: &Interrupter,
        device: &Device,
    ) -> Result<[LabelledImages; 2], String> {
        let mut frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, images)) = frozen.as_ref().filter(|(known, _)| *known == prefix) {
            return Ok(images.clone());
        }
        *frozen = None; // its memory is free before the other's is taken
        let of = |images: &LabelledImages| images.clone().through(prefix, model, interrupter, device);
        let images = [of(&self.train)?, of(&self.valid)?];
        *frozen = Some((prefix, images.clone()));
        Ok(images)
    }
}

#[cfg(test)]
mod tests {
    use backbones::VitConfig;
    use burn::tensor::Tensor;
    use datasets::sample;

    use super::*;

    #[test]
    fn a_prefix_changes_no_logit_and_is_computed_once() {
        let device = Device::flex();
        let model = VitConfig::new(sample::SIZE, 8, 12, 3, 3)
            .with_num_classes(10)
            .init(&device);
        let mut task = sample::task("digits").unwrap();
        task.train.split_off(7);
        task.valid.split_off(5);
        let task = Prepared::new(task, Normalization::default());
        let logits = |images: &LabelledImages| -> Tensor<2> {
            let batches = images.batches(3, &device);
            let logits = batches.batches().map(|batch| batch.unwrap().input.logits(&model));
            Tensor::cat(logits.collect(), 0)
        };
        let whole = logits(&task.train.joined(&task.valid));
        for prefix in [Prefix::Blocks(2), Prefix::Whole] {
            let [train, valid] = task.through(prefix, &model, &Interrupter::new(), &device).unwrap();
            let ours = logits(&train.joined(&valid));
            ours.into_data()
                .assert_approx_eq::<f32>(&whole.to_data(), burn::tensor::Tolerance::absolute(1e-6));
            let again = task.through(prefix, &model, &Interrupter::new(), &device).unwrap();
            assert!(train.shares_frozen(&again[0]));
        }
    }
}
