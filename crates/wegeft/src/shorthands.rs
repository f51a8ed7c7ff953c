//! Shorthands: `AdapterConfig::lora(8)` for `AdapterConfig::new(LoraConfig::new(8))`.

use crate::config::AdapterConfig;
use crate::methods::{
    BitfitConfig, BottleneckConfig, FullConfig, Ia3Config, LayerNormConfig, LinearProbingConfig, LoraConfig,
    PrefixTuningConfig, PromptTuningConfig, ReftConfig, VeraConfig, VptConfig, WegeftConfig,
};

impl AdapterConfig {
    /// WeGeFT of the given rank.
    pub fn wegeft(r: usize) -> Self {
        Self::new(WegeftConfig::new(r))
    }

    /// LoRA of the given rank.
    pub fn lora(r: usize) -> Self {
        Self::new(LoraConfig::new(r))
    }

    /// LoRA of the given rank with DoRA's magnitudes.
    pub fn dora(r: usize) -> Self {
        Self::new(LoraConfig::new(r).with_dora(true))
    }

    /// VeRA of the given rank.
    pub fn vera(r: usize) -> Self {
        Self::new(VeraConfig::new(r))
    }

    /// IA3; in `feedforward_modules`, the input of a layer is scaled instead of its output.
    pub fn ia3<S: Into<String>>(feedforward_modules: impl IntoIterator<Item = S>) -> Self {
        Self::new(Ia3Config::new(feedforward_modules))
    }

    /// BitFit on the biases of all linear layers.
    pub fn bitfit() -> Self {
        Self::new(BitfitConfig::new())
    }

    /// Tuning of all norms.
    pub fn layer_norm() -> Self {
        Self::new(LayerNormConfig::new())
    }

    /// LoReFT of the given rank on every block's output.
    pub fn loreft(r: usize) -> Self {
        Self::new(ReftConfig::loreft(r))
    }

    /// DiReFT of the given rank on every block's output.
    pub fn direft(r: usize) -> Self {
        Self::new(ReftConfig::direft(r))
    }

    /// VPT with the given number of prompt tokens at every block (`deep`), or at the first block only.
    pub fn vpt(num_virtual_tokens: usize, deep: bool) -> Self {
        Self::new(VptConfig::new(num_virtual_tokens, deep))
    }

    /// Prompt tuning: trained virtual tokens in front of a language model's input.
    pub fn prompt_tuning(num_virtual_tokens: usize) -> Self {
        Self::new(PromptTuningConfig::new(num_virtual_tokens))
    }

    /// Prefix tuning: trained keys and values of virtual tokens in every layer of a language model.
    pub fn prefix_tuning(num_virtual_tokens: usize) -> Self {
        Self::new(PrefixTuningConfig::new(num_virtual_tokens))
    }

    /// Houlsby's bottleneck adapters, after attention and after the MLP.
    pub fn houlsby(bottleneck_size: usize) -> Self {
        Self::new(BottleneckConfig::houlsby(bottleneck_size))
    }

    /// Pfeiffer's bottleneck adapters, after the MLP.
    pub fn pfeiffer(bottleneck_size: usize) -> Self {
        Self::new(BottleneckConfig::pfeiffer(bottleneck_size))
    }

    /// Only `modules_to_save` is trained, such as the head of a linear probe.
    pub fn linear_probing() -> Self {
        Self::new(LinearProbingConfig::new())
    }

    /// Every parameter of the model is trained.
    pub fn full() -> Self {
        Self::new(FullConfig::new())
    }
}
