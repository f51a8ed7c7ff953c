//! Language models on random tokens: a training step, prefill, decoding of one token.

use backbones::lm::config::LayerKind;
use backbones::lm::rope::RopeConfig;
use backbones::lm::{Cache, Decoder, DecoderConfig, Layout, LoadOptions, Precision, load_lm};
use backbones::resolve_lm;
use burn::module::{Module, ModuleMapper, Param};
use burn::optim::AdamWConfig;
use burn::tensor::{DType, Device, Distribution, Int, Tensor};
use wegeft::{Adapted, site};

use super::choice::{Method, Work};
use super::products::Product;
use super::{Args, Checkpointing, Pass, Workload};
use crate::cli::model_folder;
use crate::language::data::Batch;
use crate::language::generation::reading::block;
use crate::language::objective::Response;
use crate::train::step::Objective;

/// Adapted layers, as in the paper's language experiments.
const SITES: [&str; 5] = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"];

/// A Llama-style model with 100 million parameters.
fn llama_100m() -> DecoderConfig {
    let kind = LayerKind {
        window: None,
        rope: Some(0),
    };
    DecoderConfig::new("llama".into(), 32_000, 768, 2048, vec![kind; 12], 12, 4, 64, 2048)
        .with_ropes(vec![RopeConfig::new(1e4, 64)])
        .with_tied(true)
}

/// # Errors
/// A rank that is too high; a model that cannot be read, more tokens than it has positions for.
pub fn workload(args: &Args, work: Work, method: Method, device: &Device) -> Result<Workload, String> {
    let training = work.is_step();
    let on = if training {
        args.training(device)
    } else {
        device.clone()
    };
    let model = model(args, work, &on)?;
    let adapter = match method {
        Method::Frozen => None,
        method => method.config(args.r(), SITES),
    };
    let config = model.config().clone();
    let (batch, tokens) = (args.batch.unwrap_or(if training { 4 } else { 1 }), args.tokens());
    // One more token is decoded after those.
    let most = config.max_positions.saturating_sub(usize::from(work.is_decode()));
    if config.learned_positions && tokens > most {
        return Err(format!(
            "--tokens {tokens}: this model has positions for {most} tokens; choose 1 to {most}"
        ));
    }
    let weight_bytes = bytes(&model);
    let adapted = adapter.map(|adapter| adapter.init(model.clone()).map_err(|e| e.to_string()));
    let pass = match adapted.transpose()? {
        Some(adapted) if training => {
            let objective = Response {
                checkpointing: args.checkpointing == Some(Checkpointing::Layers),
            };
            step(adapted, objective, [batch, tokens], device)
        }
        adapted if work.is_decode() => decode(bound(adapted, model), [batch, tokens], device),
        adapted => prefill(bound(adapted, model), [batch, tokens], device),
    };
    Ok(Workload {
        pass,
        products: products(&config, work, batch, tokens, method == Method::Full),
        batch,
        tokens,
        read_tokens: if work.is_decode() { batch } else { batch * tokens },
        weight_bytes: work.is_decode().then_some(weight_bytes),
    })
}

fn model(args: &Args, work: Work, device: &Device) -> Result<Decoder, String> {
    let precision = Precision::from(args.dtype());
    match &args.model {
        Some(name) if work.is_of_model() => {
            let folder = resolve_lm(name).map_err(|e| e.to_string())?;
            model_folder::check(&folder, None)?;
            let options = LoadOptions {
                precision,
                quantize: args.quantize.map(Into::into),
            };
            let loaded = load_lm(&folder, &options, device).map_err(|e| e.to_string())?;
            Ok(loaded.model)
        }
        _ => Ok(llama_100m().init(device).map(&mut Stored(precision.dtype()))),
    }
}

/// Casts every weight to a type.
struct Stored(DType);

impl ModuleMapper for Stored {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        Param::initialized(param.id, param.val().cast(self.0).detach())
    }
}

/// Bytes read per token: every matrix once; the embedding only if it is also the head.
fn bytes(model: &Decoder) -> usize {
    struct Bytes(usize);
    impl burn::module::ModuleVisitor for Bytes {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let bytes = match param.val().dtype() {
                DType::F32 => 4,
                DType::BF16 | DType::F16 => 2,
                _ => 1,
            };
            if D == 2 {
                self.0 += bytes * param.lazy_shape().num_elements();
            }
        }
    }
    let mut total = Bytes(0);
    model.visit(&mut total);
    let config = model.config();
    if !config.tied {
        let embedding = site::params(model)
            .into_iter()
            .find(|param| param.holder == "Embedding");
        let head = model.head_weight();
        let width = if head.dtype() == DType::F32 { 4 } else { 2 };
        total.0 -= embedding.map_or(0, |embedding| width * embedding.len());
    }
    total.0
}

fn bound(adapted: Option<Adapted<Decoder>>, model: Decoder) -> Decoder {
    match adapted {
        Some(adapted) => adapted.bind(),
        None => model,
    }
}

fn tokens(shape: [usize; 2], vocab: usize, device: &Device) -> Tensor<2, Int> {
    Tensor::<2>::random(shape, Distribution::Uniform(0.0, vocab as f64 - 1.0), device).int()
}

/// Loss over all tokens, backward pass and AdamW.
fn step(adapted: Adapted<Decoder>, objective: Response, shape: [usize; 2], device: &Device) -> Pass {
    let mut optim = AdamWConfig::new().init();
    let vocab = adapted.backbone().config().vocab_size;
    let ids = tokens(shape, vocab, device);
    let count = shape[0] * shape[1];
    let targets = tokens(shape, vocab, device).reshape([count]);
    let batch = Batch {
        ids,
        positions: Tensor::arange(0..count as i64, device),
        targets,
        count,
        layout: Layout::dense(shape[0], shape[1]),
    };
    let mut adapted = Some(adapted);
    let device = device.clone();
    Box::new(move || {
        let before = adapted.take().expect("every pass puts the model back");
        let step = || objective.loss_and_grads(&before, batch.clone(), count as f64, 0);
        let (part, grads) = kernels::with_pool(&device, step);
        adapted = Some(optim.step(1e-3, before, grads));
        part.loss
    })
}

/// Prefill of prompts, up to the logits after their last tokens.
fn prefill(model: Decoder, shape: [usize; 2], device: &Device) -> Pass {
    let ids = tokens(shape, model.config().vocab_size, device);
    Box::new(move || {
        let mut cache = Cache::new(model.config().layers.len(), shape[1]);
        let hidden = model.hidden(ids.clone(), &Layout::dense(shape[0], shape[1]), Some(&mut cache));
        model.logits(hidden.narrow(1, shape[1] - 1, 1)).flatten(0, 2)
    })
}

/// Decoding of one token for each text, up to its logits; the texts grow by one token in each pass.
fn decode(model: Decoder, shape: [usize; 2], device: &Device) -> Pass {
    let config = model.config();
    let most = if config.learned_positions {
        config.max_positions
    } else {
        usize::MAX
    };
    let prompt = tokens(shape, config.vocab_size, device);
    let next = tokens([shape[0], 1], config.vocab_size, device);
    // As generation has it.
    let block = block(device);
    let read = move |model: &Decoder| {
        let mut cache = Cache::in_blocks(model.config().layers.len(), 2 * shape[1], block);
        model.hidden(prompt.clone(), &Layout::dense(shape[0], shape[1]), Some(&mut cache));
        cache
    };
    let (mut cache, mut length) = (read(&model), shape[1]);
    device.sync().expect("the device answers");
    Box::new(move || {
        // All positions are used, so the text starts again. Of all passes, the fastest counts.
        if length == most {
            (cache, length) = (read(&model), shape[1]);
        }
        length += 1;
        let hidden = model.hidden(next.clone(), &Layout::dense(shape[0], 1), Some(&mut cache));
        model.logits(hidden).flatten(0, 2)
    })
}

/// Products of the forward pass and, for a step, of the gradients of the layers' inputs (and, for `full`, of weights).
fn products(config: &DecoderConfig, work: Work, batch: usize, tokens: usize, full: bool) -> Vec<Product> {
    let (d, depth, heads, width) = (config.d_model, config.layers.len(), config.heads, config.head_dim);
    let queries = if work.is_decode() { 1 } else { tokens };
    let rows = batch * queries;
    let product = |count, batch, rows, depth, columns| Product {
        count,
        batch,
        rows,
        depth,
        columns,
    };
    let kv = config.kv_heads * width;
    let linear = [
        (1, d, heads * width),
        (2, d, kv),
        (1, heads * width, d),
        (2, d, config.mlp_dim),
        (1, config.mlp_dim, d),
    ];
    let step = work.is_step();
    // For a prompt, only the logits of the last token are needed.
    let head_rows = if step { rows } else { batch };
    let mut products = vec![product(1, 1, head_rows, d, config.vocab_size)];
    products.extend(linear.map(|(count, d_in, d_out)| product(count * depth, 1, rows, d_in, d_out)));
    // Half of the scores: later tokens are masked.
    let pairs = if work.is_decode() { tokens } else { tokens.div_ceil(2) };
    let scores = |count| product(count, batch * heads, queries, width, pairs);
    let mixes = |count| product(count, batch * heads, queries, pairs, width);
    products.extend([scores(depth), mixes(depth)]);
    if step {
        products.push(product(1, 1, rows, config.vocab_size, d));
        products.extend(linear.map(|(count, d_in, d_out)| product(count * depth, 1, rows, d_out, d_in)));
        products.extend([scores(depth), mixes(3 * depth)]);
    }
    if step && full {
        products.push(product(1, 1, d, rows, config.vocab_size));
        products.extend(linear.map(|(count, d_in, d_out)| product(count * depth, 1, d_in, rows, d_out)));
    }
    products
}
