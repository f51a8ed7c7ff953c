//! Evaluation of a trained classifier.

use backbones::Vit;
use burn::tensor::Device;
use burn::tensor::activation::softmax;

use crate::cli::interrupt::Interrupter;
use crate::vision::data::LabelledImages;

/// Images per forward pass.
const BATCH: usize = 100;

/// What a classifier says of every image of a set, in its order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Predictions {
    /// The most likely class of each image.
    pub classes: Vec<usize>,
    /// Its probability.
    pub probabilities: Vec<f32>,
    /// The probability of the image's own label.
    pub of_labels: Vec<f32>,
}

impl Predictions {
    /// Predicts the class of every image of `set`.
    ///
    /// # Errors
    /// An image that cannot be read, NaN among the logits, an interruption.
    pub fn of(model: &Vit, set: &LabelledImages, interrupter: &Interrupter, device: &Device) -> Result<Self, String> {
        let mut all = Self::default();
        for batch in set.batches(BATCH, device).batches() {
            if interrupter.should_stop() {
                return Err("interrupted".into());
            }
            let batch = batch.map_err(|e| e.to_string())?;
            let logits = batch.input.logits(model);
            if logits.clone().is_nan().any().into_scalar::<bool>() {
                return Err(
                    "the model's logits are NaN; check its weights, or lower learning_rate if it was trained here"
                        .into(),
                );
            }
            let [count, _] = logits.dims();
            let classes = logits.clone().argmax(1).reshape([count]);
            let probabilities = softmax(logits, 1);
            let of_labels = probabilities.clone().gather(1, batch.labels.reshape([count, 1]));
            all.classes
                .extend(classes.into_data().iter::<i64>().map(|class| class as usize));
            all.probabilities
                .extend(probabilities.max_dim(1).into_data().iter::<f32>());
            all.of_labels.extend(of_labels.into_data().iter::<f32>());
        }
        Ok(all)
    }

    /// Percent of images whose most likely class is their label.
    pub fn top1(&self, labels: &[usize]) -> f64 {
        let right = self.classes.iter().zip(labels).filter(|(class, label)| class == label);
        100.0 * right.count() as f64 / labels.len() as f64
    }

    /// `count` images, the least likely label first.
    pub fn hardest(&self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.of_labels.len()).collect();
        order.sort_by(|a, b| self.of_labels[*a].total_cmp(&self.of_labels[*b]));
        order.truncate(count);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hardest_are_those_whose_label_is_the_least_likely() {
        let found = Predictions {
            classes: vec![0, 1, 1],
            probabilities: vec![0.9, 0.8, 0.7],
            of_labels: vec![0.9, 0.1, 0.7],
        };
        assert_eq!(found.hardest(2), [1, 2]);
        assert!((found.top1(&[0, 0, 1]) - 200.0 / 3.0).abs() < 1e-9);
    }
}
