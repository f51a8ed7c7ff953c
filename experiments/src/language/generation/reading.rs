//! A batch of texts that is fed to a decoder, and the logits after their last tokens. The logits stay on the device until
//! they are needed: for a large vocabulary those of one token are a megabyte, and the likeliest token is one number.

use backbones::lm::{Cache, Decoder, Layout, Side};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::repeated::Repeated;
use crate::cli::device::computes_at_once;

/// Tokens by which the shapes of a GPU's steps grow: it compiles and tunes its kernels by shape.
const BLOCK: usize = 128;

/// Columns in which a cache on `device` is read.
pub fn block(device: &Device) -> usize {
    if computes_at_once(device) { 1 } else { BLOCK }
}

/// How a recorded step is made: as [`Repeated::start`].
pub type Start = fn(&Decoder, Box<Cache>, Tensor<2>, &Device) -> Result<Repeated, Option<Box<Cache>>>;

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
        if self
            .switches()
            .any(|length| self.texts.iter().any(|text| text.len() - 1 == length))
        {
            // The cached keys of this text were computed with other frequencies (LongRoPE).
            return self.read_all();
        }
        let ids = self.tensor(tokens, tokens.len(), 1);
        self.logits(ids, &Layout::dense(tokens.len(), 1))
    }

    /// As [`Reading::next`] for tokens `[texts, 1]` that only the device knows; [`Reading::learn`] must follow before
    /// anything else.
    pub fn next_chosen(&mut self, tokens: Tensor<2, Int>) -> Tensor<2> {
        let [rows, _] = tokens.dims();
        self.logits(tokens, &Layout::dense(rows, 1))
    }

    /// How many tokens that only the device knows may follow one another: not so many that a text must be read anew.
    pub fn most_unknown(&self) -> usize {
        let lengths = || self.texts.iter().map(Vec::len);
        self.switches()
            .flat_map(|switch| lengths().filter_map(move |length| switch.checked_sub(length)))
            .min()
            .unwrap_or(usize::MAX)
    }

    /// The tokens, step by step, that [`Reading::next_chosen`] was given.
    pub fn learn(&mut self, steps: &[Vec<u32>]) {
        for tokens in steps {
            for (text, token) in self.texts.iter_mut().zip(tokens) {
                text.push(*token);
            }
        }
    }

    /// Lengths beyond which the frequencies of a text's positions change.
    fn switches(&self) -> impl Iterator<Item = usize> {
        self.model.config().ropes.iter().filter_map(|rope| rope.switches_at())
    }

    /// Continues all texts by a recorded step, which `start` makes of the `logits` after them; [`Reading::resume`] must follow
    /// before anything else. Nothing if the device or the model cannot. The logits are those after the texts in any case.
    pub fn repeat(&mut self, start: Start, logits: Tensor<2>) -> (Option<Repeated>, Tensor<2>) {
        let cache = Box::new(std::mem::replace(&mut self.cache, Cache::new(0, 0)));
        match start(self.model, cache, logits.clone(), &self.device) {
            Ok(repeated) => (Some(repeated), logits),
            Err(Some(cache)) => {
                self.cache = *cache;
                (None, logits)
            }
            Err(None) => (None, self.read_all()),
        }
    }

    /// Goes on where the recorded step ended; [`Reading::learn`] must follow.
    pub fn resume(&mut self, repeated: Repeated) {
        self.cache = repeated.end();
    }

    /// Keeps the texts `chosen`, in that order; one may be chosen more than once.
    pub fn select(&mut self, chosen: &[usize]) {
        self.cache.select(chosen);
        self.texts = chosen.iter().map(|text| self.texts[*text].clone()).collect();
        self.prompts = chosen.iter().map(|text| self.prompts[*text]).collect();
    }

    /// Reads all texts anew and returns the logits after them.
    fn read_all(&mut self) -> Tensor<2> {
        let lengths: Vec<usize> = self.texts.iter().map(Vec::len).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let block = block(&self.device);
        self.cache = Cache::in_blocks(self.model.config().layers.len(), self.capacity, block);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_that_are_not_numbers_are_refused() {
        let device = Device::flex();
        for (odd, is_number) in [
            (f32::NAN, false),
            (f32::INFINITY, false),
            (f32::NEG_INFINITY, true),
            (-1.0, true),
        ] {
            let logits = Tensor::<2>::from_data([[0.5f32, 2.0, 1.0], [1.0, 0.0, odd]], &device);
            let read = values(logits);
            assert_eq!(read.is_ok(), is_number, "{odd}");
            assert!(is_number || read.unwrap_err().contains("--dtype f32"), "{odd}");
        }
    }
}
