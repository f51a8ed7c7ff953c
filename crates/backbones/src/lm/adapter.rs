//! Adapters on decoders, as in PEFT. If a decoder's head is its embedding and an adapter acts on only one of the two, the
//! head gets a weight of its own. The vocabulary grows if an adapter's file holds more rows.

use serde_json::{Value, json};
use wegeft::site::name_matches;
use wegeft::storage::{PREFIX, Stored, Tensors};
use wegeft::{Adapted, AdapterConfig, AdapterError, AdapterFiles, TargetModules, TokenIndices, TrainableTokensConfig};

use super::decoder::Decoder;
use super::multimodal::{self, HEAD};
use crate::drawn_start;

/// End of the name of a frozen weight below an adapter.
const BASE_LAYER: &str = ".base_layer.weight";

/// Last names of the modules that PEFT looks for where the tie of head and embedding is to be ensured.
const PEFT_TIES: [&str; 2] = ["embed_tokens", HEAD];

/// `model` with the adapter of `files`.
///
/// # Errors
/// As [`AdapterFiles::attach`]; also trained rows of an embedding that is tied to the head, together with a LoRA of the
/// head.
pub fn attach(model: Decoder, files: AdapterFiles) -> Result<Adapted<Decoder>, AdapterError> {
    let drawn = drawn_start::warning(files.fields());
    let (files, left_out) = multimodal::of_text(files, &model)?;
    let adapted = attach_to_text(model, files)?;
    let warnings = drawn.into_iter().chain(left_out);
    Ok(warnings.fold(adapted, Adapted::with_warning))
}

fn attach_to_text(model: Decoder, files: AdapterFiles) -> Result<Adapted<Decoder>, AdapterError> {
    let files = ensured_as_in_peft(files, &model)?;
    let config = files.config()?;
    refuse_rows_below_lora(&model, &files, &config)?;
    let model = match vocabulary(files.tensors(), &model) {
        Some(rows) => model.with_vocabulary(rows),
        None => model,
    };
    let was_tied = model.config().tied;
    let (model, files) = with_rows(model, files, &config);
    let model = for_adapter(model, &config)?;
    if !model.config().tied {
        let files = if was_tied {
            with_frozen_of_both(files, &model)
        } else {
            files
        };
        return files.attach(model);
    }
    match copies(files.tensors(), embedding(&model)) {
        Some(copies) => files.without(&copies).attach(model),
        // The two were trained separately, on a model that did not tie them.
        None => files.attach(model.untied()),
    }
}

/// `files`, from [`Adapted::files`] or [`Adapted::lora_files`], as PEFT loads them. If the config keeps head and embedding
/// tied, PEFT expects one of two module names in it, and the head's tensors beside the embedding's.
pub fn for_peft(files: AdapterFiles, model: &Decoder) -> Result<AdapterFiles, AdapterError> {
    let targets = files.config()?.targets;
    if !model.config().tied || !targets.ensure_weight_tying {
        return Ok(files);
    }
    let files = with_known_name(files, model);
    let of_embedding = format!("{PREFIX}{}", embedding(model));
    let copy = |(name, tensor): (&String, &Stored)| {
        let (field, tensor) = match name.strip_prefix(&of_embedding)? {
            ".lora_embedding_A" => (".lora_B.weight", transposed(tensor)),
            ".lora_embedding_B" => (".lora_A.weight", transposed(tensor)),
            ".weight" => (".weight", tensor.clone()),
            _ => return None,
        };
        Some((format!("{PREFIX}{HEAD}{field}"), tensor))
    };
    let copies: Vec<_> = files.tensors().iter().filter_map(copy).collect();
    Ok(copies
        .into_iter()
        .fold(files, |files, (name, tensor)| files.with_tensor(name, tensor)))
}

/// `files` whose config names the head beside an embedding of another name than PEFT looks for.
fn with_known_name(files: AdapterFiles, model: &Decoder) -> AdapterFiles {
    let own = |name: &str| name_matches(embedding(model), name);
    ["target_modules", "modules_to_save"]
        .into_iter()
        .fold(files, |files, field| {
            let names = match files.fields().get(field) {
                Some(Value::Array(names)) => names.clone(),
                _ => return files,
            };
            let any = |test: &dyn Fn(&str) -> bool| names.iter().filter_map(Value::as_str).any(test);
            match any(&own) && !any(&is_known) {
                true => files.with_field(field, names.iter().cloned().chain([HEAD.into()]).collect()),
                false => files,
            }
        })
}

/// True if PEFT looks for modules of that name, or of that end of a name.
fn is_known(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| PEFT_TIES.contains(&last))
}

/// `files` with `ensure_weight_tying` only where PEFT would tie head and embedding: if the config names one of them by a
/// name in [`PEFT_TIES`], or if the files hold the head's tensors.
fn ensured_as_in_peft(files: AdapterFiles, model: &Decoder) -> Result<AdapterFiles, AdapterError> {
    let targets = files.config()?.targets;
    if !targets.ensure_weight_tying {
        return Ok(files);
    }
    let named = match &targets.target_modules {
        TargetModules::Names(names) => names.iter().any(|name| is_known(name)),
        TargetModules::Regex(_) => {
            let mut alone = targets.clone();
            alone.modules_to_save.clear();
            alone.names(PEFT_TIES[0])? || alone.names(HEAD)?
        }
    };
    if named || targets.modules_to_save.iter().any(|name| is_known(name)) {
        return Ok(files);
    }
    let head = format!("{PREFIX}{HEAD}.");
    match files.tensors().keys().any(|name| name.starts_with(&head)) {
        true => Ok(with_known_name(files, model)),
        false => Ok(files.with_field("ensure_weight_tying", false.into())),
    }
}

/// Refuses single rows of a tied embedding beside a LoRA of the head: in PEFT the head then has the trained rows and its
/// LoRA, which is neither a tied nor an untied model.
fn refuse_rows_below_lora(model: &Decoder, files: &AdapterFiles, config: &AdapterConfig) -> Result<(), AdapterError> {
    let lora = format!("{PREFIX}{HEAD}.lora_");
    let of_embedding = match &config.targets.trainable_token_indices {
        None => false,
        Some(TokenIndices::ByModule(rows)) => !rows.iter().any(|(name, _)| name_matches(HEAD, name)),
        Some(_) => true,
    };
    match of_embedding && model.config().tied && files.tensors().keys().any(|name| name.starts_with(&lora)) {
        true => Err(AdapterError::BadField {
            field: "trainable_token_indices".into(),
            message:
                "tokens of an embedding that is the head too are trained beside a LoRA of 'lm_head', which is not \
                      implemented; train one of the two"
                    .into(),
        }),
        false => Ok(()),
    }
}

/// Single rows that are trained of head and embedding of a model where the two are one: the same rows are those of both,
/// others untie the two.
fn with_rows(model: Decoder, files: AdapterFiles, config: &AdapterConfig) -> (Decoder, AdapterFiles) {
    let Some(TokenIndices::ByModule(rows)) = &config.targets.trainable_token_indices else {
        return (model, files);
    };
    let of = |module: &str| rows.iter().find(|(name, _)| name_matches(module, name));
    match (of(HEAD), of(embedding(&model))) {
        (Some((_, of_head)), Some((name, of_table))) if model.config().tied && of_head == of_table => {
            let both = json!({ name: of_table });
            (model, files.with_field("trainable_token_indices", both))
        }
        (Some(_), _) => (model.untied(), files),
        (None, _) => (model, files),
    }
}

/// `files` with the frozen embedding that they hold below an adapter as the head too, and the other way round: PEFT loads it
/// into a model where the two are one.
fn with_frozen_of_both(files: AdapterFiles, model: &Decoder) -> AdapterFiles {
    let embedding = embedding(model);
    let name = |module: &str, field: &str| format!("{PREFIX}{module}{field}");
    let find = |module: &str, field: &str| files.tensors().get(&name(module, field)).cloned();
    let added = match (find(embedding, BASE_LAYER), find(HEAD, BASE_LAYER)) {
        (Some(table), None) if find(HEAD, ".weight").is_none() => Some((name(HEAD, ".weight"), table)),
        (None, Some(table)) if find(embedding, ".weight").is_none() => Some((name(embedding, ".weight"), table)),
        _ => None,
    };
    match added {
        Some((name, tensor)) => files.with_tensor(name, tensor),
        None => files,
    }
}

/// `model` as an adapter of `config` acts on it: the head gets a weight of its own if `config` names the head or the
/// embedding and does not keep them tied. As in PEFT, training one of them then leaves the other as it is.
///
/// # Errors
/// A pattern of the config that is not a valid regular expression.
pub fn for_adapter(model: Decoder, config: &AdapterConfig) -> Result<Decoder, AdapterError> {
    let targets = &config.targets;
    // Single rows stay those of both.
    let by_rows = config.settings::<TrainableTokensConfig>().is_some();
    if !model.config().tied || targets.ensure_weight_tying || by_rows {
        return Ok(model);
    }
    for module in [embedding(&model), HEAD] {
        if targets.names(module)? {
            return Ok(model.untied());
        }
    }
    Ok(model)
}

/// Module path of the embedding.
fn embedding(model: &Decoder) -> &'static str {
    match model.config().learned_positions {
        true => "transformer.wte",
        false => "model.embed_tokens",
    }
}

/// Rows of the vocabulary that an adapter was trained with, if its tensors tell: PEFT stores embedding and head with it when
/// they were resized.
fn vocabulary(tensors: &Tensors, model: &Decoder) -> Option<usize> {
    let width = model.config().d_model;
    let rows = |(name, stored): (&String, &Stored)| {
        // Beside virtual tokens without the name of a wrapper between.
        let mut spellings = [PREFIX, "base_model."]
            .into_iter()
            .filter_map(|prefix| name.strip_prefix(prefix));
        let field = spellings.find_map(|name| {
            let mut modules = [embedding(model), HEAD].into_iter();
            modules.find_map(|module| name.strip_prefix(module))
        })?;
        match (field, &stored.shape[..]) {
            (".weight" | BASE_LAYER, [rows, columns]) if *columns == width => Some(*rows),
            (".lora_embedding_A", [_, rows]) => Some(*rows),
            _ => None,
        }
    };
    tensors.iter().find_map(rows).filter(|rows| *rows > 0)
}

/// The tensors of a head that only repeat the embedding's; `None` if one of them differs.
fn copies(tensors: &Tensors, embedding: &str) -> Option<Vec<String>> {
    let mut copies = Vec::new();
    for (name, stored) in tensors {
        let Some(field) = name.strip_prefix(PREFIX).and_then(|name| name.strip_prefix(HEAD)) else {
            continue;
        };
        let of_embedding = |field: &str| tensors.get(&format!("{PREFIX}{embedding}{field}"));
        let same = match field {
            ".lora_A.weight" => of_embedding(".lora_embedding_B").map(transposed),
            ".lora_B.weight" => of_embedding(".lora_embedding_A").map(transposed),
            other => of_embedding(other).cloned(),
        };
        if same.as_ref() != Some(stored) {
            return None;
        }
        copies.push(name.clone());
    }
    Some(copies)
}

fn transposed(stored: &Stored) -> Stored {
    match stored.shape[..] {
        [rows, columns] => Stored {
            shape: vec![columns, rows],
            values: (0..columns)
                .flat_map(|column| (0..rows).map(move |row| stored.values[row * columns + column]))
                .collect(),
        },
        _ => stored.clone(),
    }
}
