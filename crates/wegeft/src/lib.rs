//! Parameter-efficient fine-tuning of [Burn](https://burn.dev) modules. The weights of a model stay frozen; a few small
//! tensors beside them, the factors of an adapter, are trained. Adapters are saved in Hugging Face PEFT's file format and
//! can be merged into the weights.
//!
//! # Methods
//!
//! M: the adapter merges into the weights. L: it exports as LoRA, which other tools read.
//!
//! | method | settings | | when to use it |
//! | --- | --- | --- | --- |
//! | WeGeFT | [`WegeftConfig`] | M L | few parameters: all layers of a kind share one pair of factors |
//! | LoRA, rsLoRA, LoRA+, LoRA-FA, PiSSA, OLoRA | [`LoraConfig`] | M L | the standard; each layer has its own factors |
//! | DoRA | [`LoraConfig::with_dora`] | M | trains magnitude and direction separately; slower than LoRA |
//! | AdaLoRA | [`AdaLoraConfig`], [`RankAllocator`] | M L | moves rank to the layers that need it |
//! | LoHa, LoKr | [`LohaConfig`], [`LokrConfig`] | M L | a higher rank than LoRA's with the same number of parameters |
//! | HiRA | [`HiraConfig`] | M | a high-rank residual, where the weight has a high rank |
//! | OFT, BOFT | [`OftConfig`], [`BoftConfig`] | M | rotations only: angles between neurons are preserved |
//! | MiSS | [`MissConfig`] | M L | one matrix per layer, cheap products (the variant `bat`: no L) |
//! | VeRA | [`VeraConfig`] | M L | small files: only the scales of fixed random factors are trained |
//! | IA3 | [`Ia3Config`] | M | very few parameters: one scale per channel |
//! | LoReFT, DiReFT | [`ReftConfig`] | | edits hidden states of some tokens instead of weights |
//! | Houlsby's and Pfeiffer's adapters | [`BottleneckConfig`] | | a small network in each block |
//! | BitFit, LayerNorm tuning | [`BitfitConfig`], [`LayerNormConfig`] | M | only biases, or only norms |
//! | VPT | [`VptConfig`] | | trained tokens among the patches of an image |
//! | prompt tuning, prefix tuning | [`PromptTuningConfig`], [`PrefixTuningConfig`] | | trained tokens before a text |
//! | rows of an embedding | [`TrainableTokensConfig`] | M | new tokens of a vocabulary; also [beside any
//! method](AdapterConfig::with_trainable_tokens) |
//! | linear probing, full fine-tuning | [`LinearProbingConfig`], [`FullConfig`] | | baselines |
//! | your own | [`Method`] | | a type that implements it, and one that implements [`Edit`]; the library does the rest |
//!
//! Each method's module under [`methods`] gives its equations and sources.
//!
//! # Features
//!
//! No feature is enabled by default; a library leaves the backend to its user.
//!
//! | feature | |
//! | --- | --- |
//! | `flex` | Burn's CPU backend with the fused operations of `wegeft-kernels`. With `burn/flex` alone everything works,
//! but slower; a warning says so |
//! | `ndarray`, `wgpu`, `vulkan`, `metal`, `webgpu`, `cuda`, `rocm` | Burn's other backends |
//! | `train` | burn-train's `Learner`: `Adapted` has the steps of its backbone |
//!
//! # Examples
//!
//! In the folder `examples`; in the repository, `cargo run -p wegeft --example NAME` runs one: `mlp` (a model of your
//! own), `transformer_encoder` (Burn's encoder, names of targets, save and load), `cnn` (convolutions), `decoder_block`
//! (activation space), `learner` (burn-train with its dashboard), `peft_adapter` (an adapter that PEFT wrote), `methods`
//! (parameter counts), `own_method`, `serving` (several adapters, mixed in one batch), `qlora` (4-bit weights).
//!
//! # Adapt
//!
//! [`AdapterConfig::init`] freezes a model and makes a [`Bank`] of trainable factors beside it; the two together
//! are an [`Adapted`] module, which is what the optimizer and the learner see. Targets are named as in PEFT: by name
//! endings or by a regular expression. The model needs no change:
//!
//! ```
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::{Device, Tensor};
//! use wegeft::AdapterConfig;
//!
//! #[derive(burn::module::Module, Debug)]
//! struct Model { up: Linear, head: Linear }
//!
//! impl Model {
//!     fn new(device: &Device) -> Self {
//!         Self { up: LinearConfig::new(8, 16).init(device), head: LinearConfig::new(16, 3).init(device) }
//!     }
//!     fn forward(&self, x: Tensor<2>) -> Tensor<2> { self.head.forward(self.up.forward(x).tanh()) }
//! }
//!
//! let device = Device::flex().autodiff();
//! let config = AdapterConfig::wegeft(2).with_target_modules(["up"]).with_modules_to_save(["head"]);
//! let adapted = config.init(Model::new(&device))?;
//! println!("{}", adapted.summary()); // groups, sites, shapes and counts
//! let y = adapted.bind().forward(Tensor::ones([4, 8], &device));
//! # assert_eq!(y.dims(), [4, 3]);
//! # Ok::<(), wegeft::AdapterError>(())
//! ```
//!
//! A site is a weight, a bias, a norm or a hook that an adapter acts on; a group is the sites that share one set of factors.
//! [`Adapted::bind`] returns the model with every site bound to its factors, for one forward pass. It copies no tensor and
//! takes a few microseconds per site on a CPU. [`Adapted::backbone`] is the frozen model.
//!
//! # What can be adapted, and how it is read
//!
//! | site | methods | in an unchanged model | in activation space |
//! | --- | --- | --- | --- |
//! | `Linear`, and any rank-2 parameter named as a target | WeGeFT, LoRA and DoRA, VeRA, IA3, AdaLoRA, LoHa, LoKr, OFT,
//! BOFT, MiSS, HiRA | yes | [`linear`], [`linear_add`], [`linear_many`] |
//! | column blocks of a fused weight ([`Fused`]) | the same | yes | [`linear`] |
//! | `Embedding` | WeGeFT, LoRA¹, VeRA, IA3 | yes | [`embedding`]: looks up rows |
//! | `Conv1d`, `Conv2d` | LoRA¹ | yes | – |
//! | weights of experts `[experts, d_in, d_out]` (`target_parameters`) | LoRA¹ | yes | – |
//! | rows of an embedding or a head (`trainable_token_indices`) | beside any method, or TRAINABLE_TOKENS | yes |
//! [`embedding`] |
//! | biases | BitFit | yes | [`linear`] |
//! | norms | LayerNorm tuning | yes | – |
//! | [`Hook`]s that a model has | ReFT, bottleneck adapters, VPT | – | yes |
//! | [`TokenHook`]s that a model has | prompt tuning, prefix tuning | – | yes |
//!
//! ¹ without DoRA, and with `init_lora_weights` true or `"gaussian"`. A convolution must have one group; Burn's modules do
//! not expose the number, so this is not checked.
//!
//! An unchanged model reads the edited weight through `Param::val()`. It is composed once per `bind()`, costs a dense
//! weight and in training a dense weight gradient, and works for any module, including Burn's attention and recurrent
//! layers. A model that calls the functions in the last column works in activation space, where the edit is applied to the
//! layer's input and output instead of its weight: same results, without these costs. Dropout works either way: in
//! activation space with a mask per row, through weights with one per forward pass. Dropout on a layer's input does not
//! act on embeddings, which have no such input; in PEFT it does not either.
//!
//! A frozen BatchNorm keeps its running statistics in training, unless its module is in `modules_to_save`. Quantized weights
//! can be adapted but not trained in full. A [`Hook`] holds one vector of its width. It is not a weight, but Burn counts it
//! in `num_params` and writes it to records.
//!
//! # Train
//!
//! Gradients land on the factors and on `modules_to_save`. [`Adapted::optimizer`] makes the parameter groups, and
//! [`Adapted::learning_rates`] applies LoRA+'s ratio. With the feature `train`, an adapted model has the training step of
//! its backbone, so that burn-train's `Learner` takes it as it is. For a backbone without one, `Adapted::with_loss` makes
//! the step from a loss function, or `Adapted::with_steps` from any code that returns gradients.
//!
//! ```
//! # use burn::nn::{Linear, LinearConfig};
//! # use burn::tensor::{Device, Tensor};
//! # #[derive(burn::module::Module, Debug)]
//! # struct Model { up: Linear, head: Linear }
//! # impl Model {
//! #     fn new(device: &Device) -> Self {
//! #         Self { up: LinearConfig::new(8, 16).init(device), head: LinearConfig::new(16, 3).init(device) }
//! #     }
//! #     fn forward(&self, x: Tensor<2>) -> Tensor<2> { self.head.forward(self.up.forward(x).tanh()) }
//! # }
//! # let device = Device::flex().autodiff();
//! use burn::optim::{AdamWConfig, GradientsParams};
//!
//! let config = wegeft::AdapterConfig::lora(2).with_target_modules(["up"]).with_modules_to_save(["head"]);
//! let mut adapted = config.init(Model::new(&device))?;
//! // The closure makes an optimizer for a given weight decay: 1e-2 for matrices, 0 for vectors.
//! let mut optimizer = adapted.optimizer(1e-2, None, |decay| AdamWConfig::new().with_weight_decay(decay).build());
//! let mut rates = adapted.learning_rates(1e-3); // or any of Burn's schedules
//! let x = Tensor::ones([4, 8], &device);
//! for _ in 0..3 {
//!     let loss = adapted.bind().forward(x.clone()).powi_scalar(2).mean();
//!     let grads = GradientsParams::from_grads(loss.backward(), &adapted);
//!     adapted = optimizer.step(rates.step(), adapted, grads);
//! }
//! # Ok::<(), wegeft::AdapterError>(())
//! ```
//!
//! # Save, load, merge, export
//!
//! A folder holds PEFT's two files ([`storage`]). A record of an [`Adapted`] holds the trained part only.
//!
//! ```
//! # use burn::nn::{Linear, LinearConfig};
//! # use burn::tensor::{Device, Tensor};
//! # #[derive(burn::module::Module, Debug)]
//! # struct Model { up: Linear, head: Linear }
//! # impl Model {
//! #     fn new(device: &Device) -> Self {
//! #         Self { up: LinearConfig::new(8, 16).init(device), head: LinearConfig::new(16, 3).init(device) }
//! #     }
//! # }
//! # let device = Device::flex();
//! # let model = Model::new(&device);
//! # let config = wegeft::AdapterConfig::wegeft(2).with_target_modules(["up"]);
//! # let adapted = config.init(model.clone())?;
//! # let dir = std::env::temp_dir().join(format!("wegeft-guide-{}", std::process::id()));
//! # let (folder, lora_folder) = (dir.join("adapter"), dir.join("lora"));
//! adapted.save(&folder)?;
//! let adapted = wegeft::Adapted::load(model, &folder)?;
//!
//! let (merged, report) = adapted.merge_with_report()?; // a plain model
//! println!("{report}"); // the largest change and where, the rounding error of half-precision weights
//! let (before, _) = config.load(merged, &folder)?.unmerge()?; // when only the merged weights are left
//!
//! adapted.export_lora(&lora_folder)?; // standard LoRA, for PEFT, vLLM and llama.cpp: B = W·phi, A = psi
//! let (nearest, lost) = adapted.to_lora()?.nearest_wegeft(&wegeft::WegeftConfig::new(2))?;
//! assert!(lost.lost() < 1e-4); // exact, since it came from WeGeFT
//! # std::fs::remove_dir_all(dir).ok();
//! # Ok::<(), wegeft::AdapterError>(())
//! ```
//!
//! # Switch
//!
//! [`Adapters`] holds several named adapters on one frozen backbone: switch, disable, add a weighted sum
//! ([`Adapters::add_weighted`]), or bind a batch whose rows use different ones ([`Adapters::bind_rows`]).
//!
//! # Types of weights
//!
//! Factors are f32; the weights they act on may have fewer bits. The backend's product gets the frozen weight as it is
//! stored: with WeGeFT's input form or LoRA, [`linear`] neither copies, transposes nor dequantizes it. Training is tested
//! with (`tests/working/dtypes.rs`):
//!
//! | weights | flex | ndarray |
//! | --- | --- | --- |
//! | f32 | yes | yes |
//! | f16, bf16 | yes | no: the backend has no half precision |
//! | 8 bit (`QuantValue::Q8S`) | yes | yes |
//! | 4 bit (`QuantValue::Q4S`) | yes | no: the backend packs none |
//!
//! Both backends keep quantized weights as bytes and dequantize them inside the product.
//!
//! Activations in half precision, on a GPU: for its products a factor is cast to their type, and its gradient arrives in f32.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod activation_space;
mod adapted;
mod adapter_files;
mod adapter_folder;
pub mod adapters;
mod bank;
mod by_path;
mod checkpoint;
mod checksum;
mod combine;
mod config;
mod convert;
mod edit;
mod embedding;
mod error;
mod export;
mod expression;
mod factors;
mod foreign;
mod freeze;
mod fresh;
mod fused;
mod graft;
mod group;
#[doc(hidden)] // for wegeft-backbones
pub mod guard;
mod hook;
mod init;
mod jacobi;
mod json;
mod kind;
mod lazy;
#[cfg(feature = "train")]
mod learner;
mod linalg;
mod linear;
mod low_rank;
mod merge;
mod method;
pub mod methods;
mod misspelled;
mod mixed;
mod nearest;
mod optimizer;
mod ordered;
mod parts;
mod paths;
mod pattern_size;
mod patterns;
mod peft_targets;
pub mod pickle;
mod prompts;
mod rank_allocator;
mod replicas;
mod rows;
mod saved_with;
mod select;
mod shorthands;
pub mod site;
mod spec;
mod statistics;
pub mod storage;
mod summary;
mod targets;
mod tensor;
mod unsupported;
mod visible;
mod weights;

pub use activation_space::ActivationSpace;
pub use adapted::Adapted;
pub use adapters::Adapters;
pub use bank::Bank;
pub use combine::Combination;
pub use config::AdapterConfig;
pub use convert::{ConversionReport, SiteLoss};
pub use edit::{Bound, Edit};
pub use embedding::embedding;
pub use error::AdapterError;
pub use factors::{Factors, Init, Spec};
pub use group::{Group, Sharing};
pub use hook::{Hook, TokenHook};
#[cfg(feature = "train")]
pub use learner::{Around, Trainee};
pub use linear::{linear, linear_add, linear_many};
pub use low_rank::LowRank;
pub use merge::{MergeReport, Recovery, UnmergeReport, WeightChange};
pub use method::{Method, Reader, read, settings};
pub use methods::generator::GeneratorConfig;
pub use methods::lora_init::LoraInit;
pub use methods::wegeft::{Side, ZeroFactor};
pub use methods::{
    AdaLoraConfig, BitfitConfig, BoftConfig, BottleneckConfig, FullConfig, HiraConfig, Ia3Config, LayerNormConfig,
    LinearProbingConfig, LohaConfig, LokrConfig, LoraConfig, METHODS, MissConfig, OftConfig, PrefixTuningConfig,
    PromptTuningConfig, ReftConfig, TrainableTokensConfig, VeraConfig, VptConfig, WegeftConfig,
};
pub use patterns::{Ordered, Patterns};
pub use prompts::Prompts;
pub use rank_allocator::RankAllocator;
pub use site::{Places, Site, SiteKind};
pub use storage::{AdapterFiles, read_config, read_config_with};
pub use summary::{GroupSummary, Summary};
pub use targets::{Fused, TargetField, TargetModules, Targets, TokenIndices};
pub use tensor::{cast, dropped, product};
pub use weights::Weights;

/// The code of the README is compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
