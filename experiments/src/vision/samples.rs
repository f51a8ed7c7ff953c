//! What the report shows of a trained classifier: test images with its predictions, and which classes it takes for which.

use std::io::Cursor;

use base64::Engine;
use datasets::Images;
use image::{DynamicImage, ImageFormat};
use serde::{Deserialize, Serialize};

use crate::vision::data::LabelledImages;
use crate::vision::evaluation::Predictions;

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
    /// True if it is among those whose label the model finds the least likely.
    #[serde(default)]
    pub hard: bool,
}

/// Images of each kind that the report shows of a trial.
const SHOWN: usize = 12;

/// Test images with what `found` says of them: some spread evenly over the set, and the hardest.
///
/// # Errors
/// An image that cannot be encoded.
pub fn samples(test: &LabelledImages, found: &Predictions, classes: &[String]) -> Result<Vec<Sample>, String> {
    let images = &test.images;
    let count = SHOWN.min(images.len());
    let even = (0..count).map(|i| (i * images.len() / count, false));
    let hard = found.hardest(SHOWN).into_iter().map(|index| (index, true));
    even.chain(hard)
        .map(|(index, hard)| {
            Ok(Sample {
                image: data_uri(images, index)?,
                label: classes[images.labels[index]].clone(),
                predicted: classes[found.classes[index]].clone(),
                probability: f64::from(found.probabilities[index]),
                hard,
            })
        })
        .collect()
}

/// Counts of labels against predictions, as confusion.json has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfusionFile {
    /// Names of the classes.
    pub classes: Vec<String>,
    /// `counts[label][predicted]`
    pub counts: Vec<Vec<usize>>,
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
