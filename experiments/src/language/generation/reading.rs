//! A batch of texts that is fed to a decoder, and the logits after their last tokens.

use backbones::lm::{Cache, Decoder, Layout, Side};
use burn::tensor::{Device, Int, Tensor, TensorData};

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
    /// Feeds `texts`, none of them empty, to the model; also returns the logits `[texts · vocab]` after the last token
    /// of each. `more`: number of tokens that may still be added to each.
    pub fn start(model: &'a Decoder, texts: Vec<Vec<u32>>, more: usize, device: &Device) -> (Self, Vec<f32>) {
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
    pub fn next(&mut self, tokens: &[u32]) -> Vec<f32> {
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

    fn read_all(&mut self) -> Vec<f32> {
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

    fn logits(&mut self, ids: Tensor<2, Int>, layout: &Layout) -> Vec<f32> {
        let tokens = layout.tokens();
        let hidden = self.model.hidden(ids, layout, Some(&mut self.cache));
        // Only the logits of the last token are needed.
        let logits = self.model.logits(hidden.narrow(1, tokens - 1, 1));
        logits
            .into_data()
            .convert::<f32>()
            .try_into_vec()
            .expect("converted to f32")
    }
}
