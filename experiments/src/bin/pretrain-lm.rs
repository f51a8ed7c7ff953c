//! Makes the small language model that ships with the repository, from text that the repository generates.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use backbones::lm::{Decoder, DecoderConfig, Layout, Precision, save_lm};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData};
use clap::Parser;
use datasets::language::sample::text::document;
use experiments::language::objective::clipped;
use experiments::language::schedule::{PerStep, Shape};
use experiments::output::{end, print, tell};
use experiments::pretraining::{check_loss, check_lr, check_out, check_positive};
use kernels::{LmHead, linear_cross_entropy};
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder};
use tokenizers::{DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};
use wegeft::storage::write_then_rename;

/// The token between documents.
const END: &str = "<|end|>";

/// Pretrains a small Llama on generated text and writes it as a Hugging Face folder.
#[derive(Parser)]
struct Args {
    /// Folder for config.json, model.safetensors (f16), tokenizer.json and tokenizer_config.json.
    #[arg(long, default_value = "runs/pretrain-lm")]
    out: PathBuf,
    /// Optimizer steps.
    #[arg(long, default_value_t = 1200)]
    steps: usize,
    /// Rows a step.
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// Tokens a row.
    #[arg(long, default_value_t = 128)]
    length: usize,
    /// Peak learning rate; warm-up of 5 %, then cosine to 0.
    #[arg(long, default_value_t = 4e-3, allow_negative_numbers = true)]
    lr: f64,
    /// Tokens of the vocabulary.
    #[arg(long, default_value_t = 1024)]
    vocab_size: usize,
    /// Width.
    #[arg(long, default_value_t = 128)]
    d_model: usize,
    /// Layers.
    #[arg(long, default_value_t = 4)]
    depth: usize,
    /// Seed of text and weights.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Device, as in the other programs.
    #[arg(long, default_value = experiments::device::DEFAULT)]
    device: String,
}

/// Query heads; keys and values have half as many.
const HEADS: usize = 4;

/// Tokens that the vocabulary has at least: one a byte, and [`END`].
const BYTES: usize = 257;

fn main() -> ExitCode {
    end("pretrain-lm", run(&Args::parse()))
}

impl Args {
    /// What would otherwise be found out after the training, or by a panic.
    fn check(&self) -> Result<(), String> {
        check_positive(&[
            ("batch-size", self.batch_size),
            ("length", self.length),
            ("depth", self.depth),
            ("steps", self.steps),
            ("d-model", self.d_model),
        ])?;
        if !self.d_model.is_multiple_of(2 * HEADS) {
            return Err(format!(
                "--d-model {} is no multiple of {}: {HEADS} heads of an even width",
                self.d_model,
                2 * HEADS
            ));
        }
        if self.vocab_size < BYTES {
            return Err(format!(
                "--vocab-size {} is below {BYTES}: a token for each byte, and {END}",
                self.vocab_size
            ));
        }
        check_lr(self.lr)?;
        check_out(&self.out)
    }
}

type Bpe = tokenizers::TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

fn run(args: &Args) -> Result<(), String> {
    args.check()?;
    let device = experiments::device::device(&args.device)?.autodiff();
    device.seed(args.seed);
    let tokenizer = tokenizer(args)?;
    let mut stream = Stream {
        tokenizer: &tokenizer,
        seed: args.seed,
        next: 0,
        ids: Vec::new(),
    };
    let json = config(args, &tokenizer);
    let mut model = DecoderConfig::from_hf(&json)?.init(&device);
    let layout = Layout::dense(args.batch_size, args.length);
    let mut optim = AdamWConfig::new()
        .with_beta_2(0.95)
        .with_weight_decay(0.01)
        .with_epsilon(1e-8)
        .init();
    let schedule = PerStep::new(args.lr, 0.05, args.steps, Shape::Cosine);
    let (start, mut shown) = (Instant::now(), f64::NAN);
    for step in 0..args.steps {
        let (ids, targets) = stream.batch(args.batch_size, args.length, &device)?;
        let loss = loss(&model, ids, targets, &layout);
        if step % 20 == 0 || step + 1 == args.steps {
            let now = f64::from(loss.clone().into_scalar::<f32>());
            check_loss(now, step)?;
            shown = if step == 0 { now } else { 0.8 * shown + 0.2 * now };
            let seconds = start.elapsed().as_secs_f64();
            tell(format_args!("step {step}: loss {shown:.3}, {seconds:.0} s"));
        }
        let grads = clipped(&model, GradientsParams::from_grads(loss.backward(), &model), 1.0);
        model = optim.step(schedule.rate(step + 1), model, grads);
    }
    let seconds = start.elapsed().as_secs_f64();
    write(args, &model, &tokenizer, json, shown, seconds)?;
    print(format_args!(
        "{} steps in {seconds:.0} s; written to {}",
        args.steps,
        args.out.display()
    ))
}

/// Mean cross-entropy of the next token, `ids` and `targets` `[batch, tokens]`.
fn loss(model: &Decoder, ids: Tensor<2, Int>, targets: Tensor<2, Int>, layout: &Layout) -> Tensor<1> {
    let hidden = model.hidden(ids, layout, None);
    let [rows, width, d_model] = hidden.dims();
    let n = rows * width;
    let head = LmHead {
        weight: model.head_weight(),
        softcap: None,
        trained: true,
    };
    linear_cross_entropy(hidden.reshape([n, d_model]), &head, targets.reshape([n]), n as f64)
}

/// Documents one after the other, cut into rows.
struct Stream<'a> {
    tokenizer: &'a Bpe,
    seed: u64,
    next: u64,
    ids: Vec<i64>,
}

impl Stream<'_> {
    /// Rows of tokens, and the token after each.
    fn batch(
        &mut self,
        rows: usize,
        length: usize,
        device: &Device,
    ) -> Result<(Tensor<2, Int>, Tensor<2, Int>), String> {
        let wanted = rows * (length + 1);
        while self.ids.len() < wanted {
            let text = document(self.seed, self.next) + END;
            let encoding = self.tokenizer.encode(text, false).map_err(|e| e.to_string())?;
            self.ids.extend(encoding.get_ids().iter().map(|id| i64::from(*id)));
            self.next += 1;
        }
        let rest = self.ids.split_off(wanted);
        let taken = std::mem::replace(&mut self.ids, rest);
        let part = |from: usize| {
            let rows = taken
                .chunks_exact(length + 1)
                .flat_map(|row| row[from..from + length].iter().copied());
            Tensor::from_data(
                TensorData::new(rows.collect::<Vec<i64>>(), [rows_of(&taken, length), length]),
                device,
            )
        };
        Ok((part(0), part(1)))
    }
}

fn rows_of(ids: &[i64], length: usize) -> usize {
    ids.len() / (length + 1)
}

/// Byte-level BPE of the first documents of the stream.
fn tokenizer(args: &Args) -> Result<Bpe, String> {
    let error = |e: Box<dyn std::error::Error + Send + Sync>| e.to_string();
    // Not split into words by GPT-2's pattern in training only: the same pre-tokenizer is written into the file.
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
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS / 2, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu",
        "attention_bias": false, "mlp_bias": false, "eos_token_id": 0, "bos_token_id": null, "pad_token_id": 0,
        "torch_dtype": "float16", "initializer_range": 0.02,
    })
}

fn write(args: &Args, model: &Decoder, tokenizer: &Bpe, config: Value, loss: f64, seconds: f64) -> Result<(), String> {
    let out = &args.out;
    // f16: half the size, and a trained model's outputs do not notice.
    save_lm(model, &config, out, Precision::F16).map_err(|e| e.to_string())?;
    let path = out.join("tokenizer.json");
    tokenizer
        .save(&path, true)
        .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    let pretraining = json!({
        "steps": args.steps, "batch_size": args.batch_size, "length": args.length, "learning_rate": args.lr,
        "seed": args.seed, "seconds": seconds.round(), "train_loss": loss,
    });
    let tokens = json!({ "eos_token": END, "pad_token": END, "bos_token": null });
    for (name, value) in [("tokenizer_config.json", tokens), ("pretraining.json", pretraining)] {
        let text = serde_json::to_string_pretty(&value).map_err(|e| e.to_string())?;
        write_then_rename(&out.join(name), text.as_bytes()).map_err(|e| e.to_string())?;
    }
    Ok(())
}
