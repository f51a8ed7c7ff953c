//! Checks, before a merged model is written or used, that it computes the same as the adapted one.

use backbones::Vit;
use backbones::lm::{Decoder, Layout, Precision};
use burn::tensor::Device;
use burn::tensor::{Int, Tensor, TensorData};
use wegeft::Adapted;

/// Greatest difference of an output, relative to the greatest output, that rounding explains for f32 weights.
const EXACT: f64 = 1e-3;
/// The same for merged weights that are rounded to half precision.
const ROUNDED: f64 = 0.1;
/// Number of tokens in the test text.
const TOKENS: usize = 16;

/// Compares a merged vision transformer with the adapted one, on an image of waves.
///
/// # Errors
/// Outputs that differ by more than rounding explains.
pub fn of_vision(
    adapted: &Adapted<Vit>,
    merged: &Vit,
    [height, width]: [usize; 2],
    device: &Device,
) -> Result<(), String> {
    let count = 3 * height * width;
    let waves: Vec<f32> = (0..count).map(|index| (index as f32 * 0.37).sin()).collect();
    let image = Tensor::<4>::from_data(TensorData::new(waves, [1, 3, height, width]), device);
    let outputs = [adapted.bind().forward(image.clone()), merged.forward(image)];
    compare(outputs.map(numbers), EXACT)
}

/// Compares a merged language model with the adapted one, on some tokens.
///
/// # Errors
/// Outputs that differ by more than rounding explains.
pub fn of_language(
    adapted: &Adapted<Decoder>,
    merged: &Decoder,
    precision: Precision,
    device: &Device,
) -> Result<(), String> {
    let vocab = merged.config().vocab_size;
    let bound_model = adapted.bind();
    let count = bound_model.max_tokens().map_or(TOKENS, |most| most.clamp(1, TOKENS));
    let ids: Vec<i64> = (0..count).map(|index| ((index * 7919) % vocab) as i64).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, count]), device);
    let logits = |model: &Decoder| {
        let hidden = model.hidden(ids.clone(), &Layout::dense(1, count), None);
        numbers(model.logits(hidden))
    };
    let bound = match precision {
        Precision::F32 => EXACT,
        Precision::Bf16 | Precision::F16 | Precision::Flex32 => ROUNDED,
    };
    compare([logits(&bound_model), logits(merged)], bound)
}

fn numbers<const D: usize>(output: Tensor<D>) -> Vec<f64> {
    output.into_data().convert::<f64>().iter::<f64>().collect()
}

fn compare([adapted, merged]: [Vec<f64>; 2], bound: f64) -> Result<(), String> {
    let greatest = adapted
        .iter()
        .fold(0.0, |greatest: f64, value| greatest.max(value.abs()));
    let pairs = adapted.iter().zip(&merged);
    let difference = pairs.fold(0.0, |most: f64, (a, b)| match (a - b).abs() {
        difference if difference.is_nan() || most.is_nan() => f64::NAN,
        difference => most.max(difference),
    });
    // NaN does not count as agreement either.
    match adapted.len() == merged.len() && difference <= bound * greatest.max(f64::MIN_POSITIVE) {
        true => Ok(()),
        false => Err(format!(
            "the merged model's outputs differ from the adapted one's by {difference:.1e} (the largest output is {greatest:.1e}), which \
             rounding does not explain"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_rounding_is_refused() {
        let outputs = vec![1.0, -4.0, 0.5];
        let other = |change: f64| vec![1.0, -4.0 + change, 0.5];
        assert!(compare([outputs.clone(), other(3e-3)], EXACT).is_ok());
        for change in [5e-3, f64::NAN, f64::INFINITY] {
            let message = compare([outputs.clone(), other(change)], EXACT).unwrap_err();
            assert!(message.contains("rounding does not explain"), "{message}");
        }
        assert!(compare([outputs.clone(), outputs[..2].to_vec()], EXACT).is_err());
        assert!(compare([vec![f64::NAN; 3], outputs], EXACT).is_err());
    }
}
