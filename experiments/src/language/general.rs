//! Measures how much general language ability a model keeps: its loss on text that is unrelated to the training.

use backbones::lm::Decoder;
use kernels::{LmHead, linear_nll};

use crate::language::data::{Batch, Sequence, Sequences};
use crate::language::generation::reading::NO_NUMBERS;
use crate::language::head::response_rows;
use crate::language::model::Lm;
use crate::language::tokens::beginning;
use crate::train::stream::Ordered;

/// Mean negative log-likelihood of a token of `texts`, each truncated to `max_length` tokens; `model` is without
/// autodiff.
///
/// # Errors
/// A text that cannot be tokenized, texts without a token to predict, logits that are not numbers.
pub fn mean_loss(
    model: &Decoder,
    lm: &Lm,
    texts: &[String],
    max_length: usize,
    batch_size: usize,
) -> Result<f64, String> {
    let sequence = |text: &String| {
        let mut ids = lm.tokenizer.encode(beginning(&lm.tokenizer, text, max_length)?, true)?;
        ids.truncate(max_length);
        lm.tokenizer.check_ids(&ids, model.config().vocab_size)?;
        Ok(Sequence {
            learned: vec![true; ids.len()],
            ids,
            ..Sequence::default()
        })
    };
    let sequences: Vec<Sequence> = texts.iter().map(sequence).collect::<Result<_, String>>()?;
    let count: usize = sequences.iter().map(Sequence::count).sum();
    if count == 0 {
        return Err("the general text is too short: it has no token to predict".into());
    }
    let device = model.head_weight().device();
    let head = LmHead {
        weight: model.head_weight(),
        softcap: model.config().final_softcap,
        trained: false,
    };
    let mut sum = 0.0;
    for batch in Ordered::new(Sequences::held_out(sequences), batch_size, &device).batches() {
        let batch: Batch = batch.map_err(|e| e.to_string())?;
        let hidden = model.hidden(batch.ids.clone(), &batch.layout, None);
        let losses = linear_nll(response_rows(hidden, &batch), &head, batch.targets);
        sum += losses.sum().into_scalar::<f64>();
    }
    match sum.is_finite() {
        true => Ok(sum / count as f64),
        false => Err(NO_NUMBERS.into()),
    }
}
