//! Answers by generation.

use backbones::lm::Decoder;
use burn::tensor::Device;

use crate::language::generation::{Generation, Generator};
use crate::language::model::Lm;
use crate::language::settings::Evaluation;

/// Continues each of `prompts` with `model` (without autodiff), all in one batch: greedily, by beam search, or sampling
/// with `seed`; each answer ends before the first of the texts in `stop`.
///
/// # Errors
/// An error of the tokenizer or the generator.
pub fn answers(
    model: &Decoder,
    lm: &Lm,
    prompts: &[String],
    settings: &Evaluation,
    stop: &[String],
    seed: u64,
) -> Result<Vec<String>, String> {
    let ids = prompts.iter().map(|prompt| lm.tokenizer.encode(prompt, true));
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    let device: Device = model.head_weight().device();
    let end = lm.end_token()?;
    let mut eos = lm.pretrained.generation.eos.clone();
    if !eos.contains(&end) {
        eos.push(end);
    }
    let generator = Generator {
        model,
        tokenizer: Some(&lm.tokenizer),
        eos: &eos,
        device: &device,
    };
    let settings = Generation {
        max_new_tokens: settings.max_new_tokens,
        num_beams: settings.num_beams,
        temperature: settings.temperature,
        top_p: settings.top_p,
        repetition_penalty: settings.repetition_penalty,
        no_repeat_ngram_size: settings.no_repeat_ngram_size,
        stop: stop.to_vec(),
        seed,
        ..Generation::default()
    };
    let generated = generator.generate(&ids, &settings, &mut |_, _| {})?;
    Ok(generated.into_iter().map(|generated| generated.text).collect())
}
