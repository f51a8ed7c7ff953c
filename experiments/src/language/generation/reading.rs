//! A batch of texts that is fed to a decoder, and the logits after their last tokens. The logits stay on the device until
//! they are needed: for a large vocabulary those of one token are a megabyte, and the likeliest token is one number.

use backbones::lm::{Cache, Decoder, Layout, Side};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// Texts of a batch, with their key-value cache.
pub struct Reading<'a> {
    model: &'a Decoder,
    device: Device,
    cache: Cache,
    texts: Vec<Vec<u32>>,
    /// Number of prompt tokens of each text.
    prompts: Vec<usize>,
    /// Capacity in tokens per text.
    capacity: usize,
}

impl<'a> Reading<'a> {
    /// Feeds `texts`, none of them empty, to the model; also returns the logits `[texts, vocab]` after the last token of
    /// each. `more`: number of tokens that may still be added to each.
    pub fn start(model: &'a Decoder, texts: Vec<Vec<u32>>, more: usize, device: &Device) -> (Self, Tensor<2>) {
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let mut reading = Self {
            model,
            device: device.clone(),
            cache: Cache::new(0, 0),
            prompts: texts.iter().map(Vec::len).collect(),
            texts,
            capacity: longest + more,
        };
        let logits = reading.read_all();
        (reading, logits)
    }

    /// The texts so far.
    pub fn texts(&self) -> &[Vec<u32>] {
        &self.texts
    }

    /// Adds one token to each text and returns the logits after it.
    pub fn next(&mut self, tokens: &[u32]) -> Tensor<2> {
        for (text, token) in self.texts.iter_mut().zip(tokens) {
            text.push(*token);
        }
        let mut switches = self.model.config().ropes.iter().filter_map(|rope| rope.switches_at());
        if switches.any(|length| self.texts.iter().any(|text| text.len() - 1 == length)) {
            // The cached keys of this text were computed with other frequencies (LongRoPE).
            return self.read_all();
        }
        let ids = self.tensor(tokens, tokens.len(), 1);
        self.logits(ids, &Layout::dense(tokens.len(), 1))
    }

    /// Keeps the texts `chosen`, in that order; one may be chosen more than once.
    pub fn select(&mut self, chosen: &[usize]) {
        self.cache.select(chosen);
        self.texts = chosen.iter().map(|text| self.texts[*text].clone()).collect();
        self.prompts = chosen.iter().map(|text| self.prompts[*text]).collect();
    }

    fn read_all(&mut self) -> Tensor<2> {
        let lengths: Vec<usize> = self.texts.iter().map(Vec::len).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        self.cache = Cache::new(self.model.config().layers.len(), self.capacity);
        let mut ids = vec![0; lengths.len() * longest];
        for (row, text) in ids.chunks_exact_mut(longest.max(1)).zip(&self.texts) {
            row[longest - text.len()..].copy_from_slice(text);
        }
        let ids = self.tensor(&ids, lengths.len(), longest);
        let prompts: Vec<Vec<usize>> = self.prompts.iter().map(|length| vec![*length]).collect();
        let layout = Layout::padded(&lengths, longest, Side::Left).with_prompts(&prompts);
        self.logits(ids, &layout)
    }

    fn tensor(&self, ids: &[u32], rows: usize, tokens: usize) -> Tensor<2, Int> {
        let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        Tensor::from_data(TensorData::new(ids, [rows, tokens]), &self.device)
    }

    fn logits(&mut self, ids: Tensor<2, Int>, layout: &Layout) -> Tensor<2> {
        let tokens = layout.tokens();
        let hidden = self.model.hidden(ids, layout, Some(&mut self.cache));
        // Only the logits of the last token are needed.
        self.model.logits(hidden.narrow(1, tokens - 1, 1)).squeeze_dim(1)
    }
}

/// The error for NaN or infinite logits: without it, some token would still be chosen.
pub const NO_NUMBERS: &str = "the model's logits are NaN or infinite: its weights or those of its adapter are, or they \
                              overflow in this type; check the files, or give --dtype f32";

/// Logits in host memory, row after row.
///
/// # Errors
/// Logits that are not numbers.
pub fn values(logits: Tensor<2>) -> Result<Vec<f32>, String> {
    let data = logits.into_data().convert::<f32>();
    let values: Vec<f32> = data.try_into_vec().expect("converted to f32");
    match are_numbers(values.iter().copied()) {
        true => Ok(values),
        false => Err(NO_NUMBERS.into()),
    }
}

/// True if nothing is NaN or +∞; −∞ only means that a token is impossible. Looks at all of them, which is faster than to
/// stop at the first.
pub fn are_numbers(logits: impl Iterator<Item = f32>) -> bool {
    logits.fold(true, |all, logit| all & (logit < f32::INFINITY))
}

/// The token of the largest logit of each row, the first of several: chosen on the device.
///
/// # Errors
/// Logits that are not numbers.
pub fn likeliest(logits: Tensor<2>) -> Result<Vec<u32>, String> {
    // A sum is NaN or +∞ if one of them is; in f32, since f16 might overflow.
    let sums = logits.clone().cast(DType::F32).sum_dim(1);
    // f32 holds whole numbers to 2^24, more than any vocabulary has.
    let chosen = logits.argmax(1).float().cast(DType::F32);
    // One transfer for both.
    let both: Vec<f32> = Tensor::cat(vec![chosen, sums], 1).into_data().iter().collect();
    match both.chunks_exact(2).all(|row| row[1] < f32::INFINITY) {
        true => Ok(both.chunks_exact(2).map(|row| row[0] as u32).collect()),
        false => Err(NO_NUMBERS.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::generation::sampling;

    #[test]
    #[cfg(feature = "ndarray")]
    #[allow(deprecated)] // upstream deprecates ndarray
    fn the_device_chooses_as_the_host_does() {
        let scores = [
            [0.5f32, 2.0, -1.0, 2.0, 1.0],
            [-3.0, -2.5, -9.0, -4.0, -2.5],
            [7.0, 7.0, 7.0, 7.0, 7.0],
        ];
        for device in [Device::flex(), Device::ndarray()] {
            let logits = Tensor::<2>::from_data(scores, &device);
            let host: Vec<u32> = scores.iter().map(|row| sampling::likeliest(row)).collect();
            assert_eq!(likeliest(logits.clone()).unwrap(), host);
            assert_eq!(values(logits).unwrap(), scores.concat());
        }
    }

    #[test]
    fn logits_that_are_not_numbers_are_refused_wherever_the_choice_is_made() {
        let device = Device::flex();
        for (odd, is_number) in [
            (f32::NAN, false),
            (f32::INFINITY, false),
            (f32::NEG_INFINITY, true),
            (-1.0, true),
        ] {
            let logits = Tensor::<2>::from_data([[0.5f32, 2.0, 1.0], [1.0, 0.0, odd]], &device);
            assert_eq!(values(logits.clone()).is_ok(), is_number, "{odd}");
            let chosen = likeliest(logits);
            assert_eq!(chosen.clone().ok(), is_number.then(|| vec![1, 0]), "{odd}");
            assert!(is_number || chosen.unwrap_err().contains("--dtype f32"), "{odd}");
        }
    }
}
