//! A few test images with a trained model's predictions, for the report.

use std::io::Cursor;

use backbones::Vit;
use base64::Engine;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use datasets::Images;
use image::{DynamicImage, ImageFormat};
use serde::{Deserialize, Serialize};

use crate::vision::data::{LabelledImages, normalised};

/// One test image and its prediction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// The image, at most 96 pixels wide and high, as a `data:` URI.
    #[serde(alias = "picture")] // as earlier runs wrote it
    pub image: String,
    /// Its label.
    pub label: String,
    /// The most likely class.
    pub predicted: String,
    /// Probability of that class.
    pub probability: f64,
}

/// Predictions of `model` for `count` test images, spread evenly over the set.
///
/// # Errors
/// An image that cannot be encoded.
pub fn samples(
    model: &Vit,
    test: &LabelledImages,
    classes: &[String],
    count: usize,
    device: &Device,
) -> Result<Vec<Sample>, String> {
    let images = &test.images;
    let count = count.min(images.len());
    let chosen: Vec<usize> = (0..count).map(|i| i * images.len() / count).collect();
    let pixels = |index: &usize| images.pixels(*index);
    let pixels = normalised(&chosen, pixels, [images.size; 2], test.normalization).map_err(|e| e.to_string())?;
    let logits = model.forward(Tensor::from_data(pixels, device));
    let (probability, predicted) = softmax(logits, 1).max_dim_with_indices(1);
    let probability: Vec<f32> = probability.into_data().iter().collect();
    let predicted: Vec<i64> = predicted.into_data().iter().collect();
    chosen
        .iter()
        .zip(probability.iter().zip(predicted))
        .map(|(index, (probability, predicted))| {
            Ok(Sample {
                image: data_uri(images, *index)?,
                label: classes[images.labels[*index]].clone(),
                predicted: classes[predicted as usize].clone(),
                probability: f64::from(*probability),
            })
        })
        .collect()
}

fn data_uri(images: &Images, index: usize) -> Result<String, String> {
    const WIDEST: u32 = 96;
    let image = images.rgb(index).map_err(|e| e.to_string())?;
    let image = match image.width().max(image.height()) > WIDEST {
        true => DynamicImage::from(image.as_ref().clone())
            .thumbnail(WIDEST, WIDEST)
            .into_rgb8(),
        false => image.as_ref().clone(),
    };
    let mut png = Cursor::new(Vec::new());
    image
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|e| format!("cannot encode a test image: {e}"))?;
    let text = base64::engine::general_purpose::STANDARD.encode(png.into_inner());
    Ok(format!("data:image/png;base64,{text}"))
}
