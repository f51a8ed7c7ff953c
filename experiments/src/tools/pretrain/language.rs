//! Makes the small language model that ships with the repository, from text that the repository generates.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use backbones::lm::{Decoder, DecoderConfig, Precision, save_lm};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use clap::Parser;
use datasets::language::sample::text::document;
use serde::Serialize;
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder};
use tokenizers::{DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

use crate::language::data::{Batch, Sequence, Values};
use crate::language::objective::Response;
use crate::run::files::{replace_together, write_json};
use crate::tools::flags::whole;
use crate::tools::pretrain::checks::{MAKER, MOST_OF_A_STEP, MOST_STEPS, check_learning_rate, check_out, examples};
use crate::tools::pretrain::session::{Pretraining, Shown};
use crate::train::stream::{Plan, Source};
use crate::train::trainer::Measured;

/// The token between documents.
const END: &str = "<|end|>";

/// Pretrain a small Llama on generated text and write it as a Hugging Face folder
#[derive(Debug, Parser, Serialize)]
#[command(name = "pretrain-lm")]
pub struct Args {
    /// Folder for config.json, model.safetensors (f16), tokenizer.json and tokenizer_config.json.
    #[arg(
        long,
        help_heading = "Output",
        alias = "output-dir",
        default_value = "runs/pretrain-lm"
    )]
    out: PathBuf,
    /// Optimizer steps.
    #[arg(long, help_heading = "Training", default_value_t = 1200, value_parser = whole(1..=MOST_STEPS))]
    steps: usize,
    /// Rows per step.
    #[arg(long, help_heading = "Training", default_value_t = 32, value_parser = whole(1..=MOST_OF_A_STEP))]
    batch_size: usize,
    /// Tokens per row.
    #[arg(
        long = "max-length",
        help_heading = "Training",
        alias = "length",
        default_value_t = 128,
        value_parser = whole(1..=POSITIONS)
    )]
    length: usize,
    /// Peak learning rate.
    ///
    /// 5 % of the steps are warm-up; then it decays to 0 as a cosine.
    #[arg(long, help_heading = "Training", alias = "lr", default_value_t = 4e-3)]
    learning_rate: f64,
    /// Vocabulary size, tokens.
    #[arg(long, help_heading = "Model", default_value_t = 1024, value_parser = whole(BYTES..=1_000_000))]
    vocab_size: usize,
    /// Width of the model.
    #[arg(long, help_heading = "Model", default_value_t = 128, value_parser = whole(1..=8192))]
    d_model: usize,
    /// Layers.
    #[arg(long, help_heading = "Model", default_value_t = 4, value_parser = whole(1..=256))]
    depth: usize,
    /// Seed of text and weights.
    #[arg(long, help_heading = "Run", default_value_t = 42)]
    seed: u64,
    /// Device: flex, ndarray, vulkan, cuda:1, …; a+b splits the training over both.
    #[arg(long, help_heading = "Run", default_value = crate::cli::device::DEFAULT)]
    device: String,
    /// What is printed.
    #[command(flatten)]
    #[serde(skip)]
    shown: Shown,
}

/// The files of the model.
const FILES: [&str; 5] = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "pretraining.json",
];

/// Query heads; keys and values have half as many.
const HEADS: usize = 4;

/// Minimum size of the vocabulary: one token per byte, and [`END`].
const BYTES: usize = 257;

/// Maximum tokens of a text that the model is for.
const POSITIONS: usize = 2048;

impl Args {
    /// Checks what would otherwise fail only after the training, or panic; returns the number of examples.
    fn check(&self) -> Result<usize, String> {
        if !self.d_model.is_multiple_of(2 * HEADS) {
            return Err(format!(
                "--d-model {} is not a multiple of {}: {HEADS} heads of an even width",
                self.d_model,
                2 * HEADS
            ));
        }
        check_learning_rate(self.learning_rate)?;
        let count = examples(self.steps, self.batch_size)?;
        check_out(&self.out, &FILES)?;
        Ok(count)
    }
}

type Bpe = tokenizers::TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// Runs the program.
///
/// # Errors
/// One sentence: invalid flags, a loss that is not a number, an interruption, a file that cannot be written.
pub fn pretrain(args: &Args) -> Result<(), String> {
    args.shown.begin();
    let count = args.check()?;
    let devices: Vec<Device> = crate::cli::device::devices(&args.device)?
        .into_iter()
        .map(Device::autodiff)
        .collect();
    let device = &devices[0];
    let pretraining = Pretraining {
        out: &args.out,
        flags: json!(args),
        steps: args.steps,
        batch_size: args.batch_size,
        learning_rate: args.learning_rate,
        weight_decay: 0.01,
        beta_2: 0.95,
        max_grad_norm: 1.0,
        measured: Measured::Tokens,
        seed: args.seed,
        shown: &args.shown,
        files: &FILES,
    };
    if pretraining.is_finished()? {
        return Ok(());
    }
    device.seed(args.seed);
    let tokenizer = Arc::new(tokenizer(args)?);
    let config = config(args, &tokenizer);
    let model = DecoderConfig::from_hf(&config)?.init(device);
    let rows = Rows {
        tokenizer: tokenizer.clone(),
        seed: args.seed,
        length: args.length,
        count,
        stream: Arc::default(),
    };
    let none = Rows {
        count: 0,
        ..rows.clone()
    };
    let objective = Response { checkpointing: false };
    let trained = pretraining.run(model, objective, rows, none, &devices)?;
    replace_together(&args.out, Some(MAKER), Some("config.json"), |made| {
        let loss = &trained.last["loss"];
        write(args, made, &trained.model, &tokenizer, &config, loss, trained.seconds)
    })?;
    pretraining.finish(trained.seconds)
}

/// Concatenated documents, cut into rows; all tokens of a row except the first are targets.
#[derive(Clone)]
struct Rows {
    tokenizer: Arc<Bpe>,
    seed: u64,
    length: usize,
    count: usize,
    stream: Arc<Mutex<Stream>>,
}

/// Position in the stream of documents.
#[derive(Default)]
struct Stream {
    document: u64,
    row: usize,
    ids: Vec<u32>,
}

impl Rows {
    /// Row `index`; earlier rows are cut first.
    fn row(&self, index: usize) -> Result<Vec<u32>, tokenizers::Error> {
        let wanted = self.length + 1;
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if stream.row > index {
            *stream = Stream::default();
        }
        loop {
            while stream.ids.len() < wanted {
                let text = document(self.seed, stream.document) + END;
                let encoding = self.tokenizer.encode(text, false)?;
                stream.ids.extend(encoding.get_ids());
                stream.document += 1;
            }
            let rest = stream.ids.split_off(wanted);
            let row = std::mem::replace(&mut stream.ids, rest);
            stream.row += 1;
            if stream.row > index {
                return Ok(row);
            }
        }
    }
}

/// A document that cannot be tokenized.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Untokenized(String);

impl Source for Rows {
    type Host = Values;
    type Batch = Batch;

    fn count(&self) -> usize {
        self.count
    }

    /// In order: every row is new.
    fn epoch(&self, plan: &Plan, _epoch: usize) -> Vec<Vec<usize>> {
        let order: Vec<usize> = (0..self.count).collect();
        order.chunks(plan.batch_size).map(<[usize]>::to_vec).collect()
    }

    fn read(&self, items: &[usize], _seed: Option<u64>) -> Result<Values, DatasetError> {
        let sequence = |item: &usize| {
            let ids = self
                .row(*item)
                .map_err(|e| DatasetError::new(Untokenized(e.to_string())))?;
            Ok(Sequence {
                learned: vec![true; ids.len()],
                ids,
                starts: Vec::new(),
            })
        };
        let sequences = items.iter().map(sequence).collect::<Result<Vec<_>, DatasetError>>()?;
        Ok(Values::new(sequences.iter()))
    }

    fn on_device(&self, host: Values, device: &Device) -> Batch {
        host.on_device(device)
    }
}

/// Byte-level BPE of the first documents of the stream.
fn tokenizer(args: &Args) -> Result<Bpe, String> {
    let error = |e: Box<dyn std::error::Error + Send + Sync>| e.to_string();
    // GPT-2's pattern splits words not only in training: the same pre-tokenizer is written into the file.
    let mut tokenizer: Bpe = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(None)
        .with_pre_tokenizer(Some(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true))))
        .with_post_processor(None)
        .with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::default())))
        .build()
        .map_err(error)?;
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(args.vocab_size)
        .special_tokens(vec![AddedToken::from(END, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let texts = (0..4000).map(|index| document(args.seed, index));
    tokenizer.train(&mut trainer, texts).map_err(error)?;
    Ok(tokenizer)
}

fn config(args: &Args, tokenizer: &Bpe) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": tokenizer.get_vocab_size(true),
        "hidden_size": args.d_model, "intermediate_size": args.d_model * 11 / 4, "num_hidden_layers": args.depth,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS / 2, "max_position_embeddings": POSITIONS,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu",
        "attention_bias": false, "mlp_bias": false, "eos_token_id": 0, "bos_token_id": null, "pad_token_id": 0,
        "torch_dtype": "float16", "initializer_range": 0.02,
    })
}

fn write(
    args: &Args,
    out: &Path,
    model: &Decoder,
    tokenizer: &Bpe,
    config: &Value,
    loss: &Value,
    seconds: f64,
) -> Result<(), String> {
    // f16: half the size, with no noticeable change of a trained model's outputs.
    save_lm(model, config, out, Precision::F16).map_err(|e| e.to_string())?;
    let path = out.join("tokenizer.json");
    files::replace_by(&path, |temporary| {
        tokenizer.save(temporary, true).map_err(io::Error::other)
    })
    .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    let pretraining = json!({
        "steps": args.steps, "batch_size": args.batch_size, "length": args.length, "learning_rate": args.learning_rate,
        "seed": args.seed, "seconds": seconds.round(), "train_loss": loss,
    });
    let tokens = json!({ "eos_token": END, "pad_token": END, "bos_token": null });
    write_json(&out.join("tokenizer_config.json"), &tokens)?;
    write_json(&out.join("pretraining.json"), &pretraining)
}
