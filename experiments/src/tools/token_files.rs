//! Tokens and logits as safetensors, for comparison with other frameworks.

use std::path::Path;

use backbones::lm::{Decoder, Layout};
use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use wegeft::storage::{check_header, write_then_rename};

use crate::language::generation::reading::{NO_NUMBERS, are_numbers};
use crate::language::generation::too_long;

/// The prompts in a file: integer tensors `input_ids`, `[tokens]` or `[prompts, tokens]`, or `input_ids.0`,
/// `input_ids.1`, …
///
/// # Errors
/// A file that cannot be read, without such a tensor, or of another type or shape.
pub fn read_input_ids(path: &Path) -> Result<Vec<Vec<u32>>, String> {
    let error = |message: String| format!("{}: {message}", path.display());
    let bytes = files::read_regular(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    check_header(&bytes).map_err(error)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| error(format!("not a complete safetensors file ({e})")))?;
    let mut prompts = Vec::new();
    if let Ok(tensor) = file.tensor("input_ids") {
        let ids = ids(&tensor).map_err(error)?;
        match tensor.shape() {
            [_] => prompts.push(ids),
            [_, tokens] if *tokens > 0 => prompts.extend(ids.chunks_exact(*tokens).map(<[u32]>::to_vec)),
            shape => {
                return Err(error(format!(
                    "'input_ids' has shape {shape:?}, expected [tokens] or [prompts, tokens]"
                )));
            }
        }
    }
    while let Ok(tensor) = file.tensor(&format!("input_ids.{}", prompts.len())) {
        prompts.push(ids(&tensor).map_err(error)?);
    }
    if prompts.is_empty() {
        return Err(error("there is no tensor 'input_ids' or 'input_ids.0' in it".into()));
    }
    Ok(prompts)
}

fn ids(tensor: &TensorView) -> Result<Vec<u32>, String> {
    let bytes = tensor.data();
    let whole = |value: i64| u32::try_from(value).map_err(|_| format!("{value} in 'input_ids' is not a token id"));
    match tensor.dtype() {
        Dtype::I64 => bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| whole(i64::from_le_bytes(*bytes)))
            .collect(),
        Dtype::I32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| whole(i64::from(i32::from_le_bytes(*bytes))))
            .collect(),
        other => Err(format!("'input_ids' has dtype {other:?}, expected I64 or I32")),
    }
}

/// Writes `input_ids` (I64) and `logits` (F32) of each prompt, with suffixes `.0`, `.1`, … if there are several.
/// Prompts run one by one, so there is no padding, and the model's logits of only one prompt are in memory at a time,
/// besides those to be written.
///
/// # Errors
/// A prompt that is empty, too long for the model or has a token outside the vocabulary, logits that
/// are not numbers, a file that cannot be written.
pub fn write_logits(model: &Decoder, prompts: &[&[u32]], path: &Path, device: &Device) -> Result<(), String> {
    let vocab = model.config().vocab_size;
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (index, prompt) in prompts.iter().enumerate() {
        if prompt.is_empty() || prompt.iter().any(|token| *token as usize >= vocab) {
            return Err(format!(
                "prompt {index} is empty or has a token beyond the vocabulary of {vocab}"
            ));
        }
        if let Some(why) = too_long(model, prompt.len()) {
            return Err(format!("prompt {index} has {} tokens, but {why}", prompt.len()));
        }
        let ids: Vec<i64> = prompt.iter().map(|token| i64::from(*token)).collect();
        let id_bytes = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, prompt.len()]), device);
        let hidden = model.hidden(ids, &Layout::dense(1, prompt.len()), None);
        let logits = model.logits(hidden).into_data().convert::<f32>();
        if !are_numbers(logits.iter::<f32>()) {
            return Err(format!("prompt {index}: {NO_NUMBERS}"));
        }
        let suffix = if prompts.len() == 1 {
            String::new()
        } else {
            format!(".{index}")
        };
        tensors.push((format!("input_ids{suffix}"), Dtype::I64, vec![prompt.len()], id_bytes));
        let bytes = logits.into_bytes().to_vec();
        tensors.push((format!("logits{suffix}"), Dtype::F32, vec![prompt.len(), vocab], bytes));
    }
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|e| e.to_string())?;
    let packed = safetensors::serialize(views, None).map_err(|e| e.to_string())?;
    write_then_rename(path, &packed).map_err(|e| e.to_string())
}
