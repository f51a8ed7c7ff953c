//! Vision transformers on random images.

use backbones::{Vit, VitConfig};
use burn::module::{Lora, Module, ParamGroup};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Int, Tensor};

use super::choice::{Method, Work};
use super::products::Product;
use super::{Args, Checkpointing, Pass, Workload};
use crate::train::step::Objective;
use crate::vision::data::{Batch, Input};
use crate::vision::objective::CrossEntropy;

/// Size of the head.
const CLASSES: usize = 10;

fn config(work: Work) -> VitConfig {
    let (d_model, heads) = match work {
        Work::VitTinyForward | Work::VitTinyStep => (192, 3),
        Work::VitSForward | Work::VitSStep => (384, 6),
        _ => (768, 12),
    };
    VitConfig::new(224, 16, d_model, 12, heads).with_num_classes(CLASSES)
}

/// # Errors
/// A rank that is too high.
pub fn workload(args: &Args, work: Work, method: Method, device: &Device) -> Result<Workload, String> {
    let (config, batch) = (config(work), args.batch.unwrap_or(super::BATCH));
    let pixels = [batch, 3, config.image_size, config.image_size];
    let pixels = Tensor::<4>::random(pixels, Distribution::Normal(0.0, 1.0), device);
    let labels = Tensor::<1, Int>::arange(0..batch as i64, device).remainder_scalar(CLASSES as i64);
    let training = args.training(device);
    let model = config.init(if work.is_step() { &training } else { device });
    let adapter = method.config(args.r(), ["attn.proj"]);
    let adapter = adapter.map(|adapter| adapter.with_modules_to_save(["head"]));
    let products = products(&config, batch, work.is_step(), method);
    let tokens = config.patches() + 1;
    let pass = match (adapter, work.is_step()) {
        (Some(adapter), false) => {
            let adapted = adapter.init(model).map_err(|e| e.to_string())?;
            Box::new(move || adapted.bind().forward(pixels.clone()).flatten(0, 1)) as Pass
        }
        (Some(adapter), true) => {
            let adapted = adapter.init(model).map_err(|e| e.to_string())?;
            let batch = Batch {
                input: Input::Pixels(pixels),
                labels,
                shares: None,
                seed: 0,
            };
            let objective = CrossEntropy {
                checkpointing: args.checkpointing == Some(Checkpointing::Layers),
            };
            let terms = objective.terms(&batch) as f64;
            training_pass(adapted, move |adapted| {
                let (part, grads) = objective.loss_and_grads(adapted, batch.clone(), terms, 0);
                (part.loss, grads)
            })
        }
        (None, is_step) => {
            let model = burn_lora(model, args.r())?;
            match is_step {
                false => Box::new(move || model.forward(pixels.clone()).flatten(0, 1)),
                true => training_pass(model, move |model| {
                    let logits = model.forward(pixels.clone());
                    let loss = CrossEntropyLossConfig::new().init(&logits.device());
                    let loss = loss.forward(logits, labels.clone());
                    (loss.clone(), GradientsParams::from_grads(loss.backward(), model))
                }),
            }
        }
    };
    Ok(Workload {
        pass,
        products,
        batch,
        tokens,
        read_tokens: batch * tokens,
        weight_bytes: None,
    })
}

/// Loss, backward pass and AdamW.
fn training_pass<M: Module + 'static>(
    model: M,
    loss_and_grads: impl Fn(&M) -> (Tensor<1>, GradientsParams) + 'static,
) -> Pass {
    let mut optim = AdamWConfig::new().init();
    let mut model = Some(model);
    Box::new(move || {
        let before = model.take().expect("every pass puts the model back");
        let (loss, grads) = loss_and_grads(&before);
        model = Some(optim.step(1e-3, before, grads));
        loss.inner()
    })
}

/// Burn's own LoRA on the same sites: it materializes the adapted weight and its dense gradient for each site.
fn burn_lora(model: Vit, rank: usize) -> Result<Vit, String> {
    let group = |pattern: &str| ParamGroup::from_regex(pattern).map_err(|e| format!("{pattern}: {e:?}"));
    let sites = group(r"attn\.proj\.weight$")?;
    let model = model.apply_lora(Lora::new(rank, rank as f64).set_param_group(sites));
    Ok(model.unfreeze_group(group(r"^head\.")?))
}

/// Products of the forward pass and, for a step, of the gradients that the trained part needs. Those of the adapter are
/// left out: they are small, and the comparison of methods should show them.
fn products(config: &VitConfig, batch: usize, step: bool, method: Method) -> Vec<Product> {
    let (d, tokens) = (config.d_model, config.patches() + 1);
    let (heads, depth) = (config.heads, config.depth);
    let product = |count, batch, rows, depth, columns| Product {
        count,
        batch,
        rows,
        depth,
        columns,
    };
    let rows = batch * tokens;
    let pixels = 3 * config.patch_size * config.patch_size;
    let linear = [(d, 3 * d), (d, d), (d, 4 * d), (4 * d, d)];
    // Only the CLS token is computed in the last block: the other tokens serve only as keys and values.
    let whole = depth - 1;
    let last = [
        (batch, d, d),
        (rows, d, 2 * d),
        (batch, d, d),
        (batch, d, 4 * d),
        (batch, 4 * d, d),
    ];
    let scores = |count, queries| product(count, batch * heads, queries, d / heads, tokens);
    let mixes = |count, queries| product(count, batch * heads, queries, tokens, d / heads);
    let mut products = vec![product(1, 1, batch * (tokens - 1), pixels, d)];
    products.extend(linear.map(|(d_in, d_out)| product(whole, 1, rows, d_in, d_out)));
    products.extend(last.map(|(rows, d_in, d_out)| product(1, 1, rows, d_in, d_out)));
    products.extend([scores(whole, tokens), mixes(whole, tokens), scores(1, 1), mixes(1, 1)]);
    if !step || method == Method::Frozen {
        return products;
    }
    // The gradient of the input of each layer after the first trained one.
    let below_proj = if method == Method::Full { whole } else { whole - 1 };
    let counts = [below_proj, below_proj, whole, whole];
    products.extend(
        linear
            .into_iter()
            .zip(counts)
            .map(|((d_in, d_out), count)| product(count, 1, rows, d_out, d_in)),
    );
    products.extend(last.map(|(rows, d_in, d_out)| product(1, 1, rows, d_out, d_in)));
    products.extend([
        scores(below_proj, tokens),
        mixes(3 * below_proj, tokens),
        scores(1, 1),
        mixes(3, 1),
    ]);
    if method == Method::Full {
        products.push(product(1, 1, pixels, batch * (tokens - 1), d));
        products.extend(linear.map(|(d_in, d_out)| product(whole, 1, d_in, rows, d_out)));
        products.extend(last.map(|(rows, d_in, d_out)| product(1, 1, d_in, rows, d_out)));
    }
    products
}
