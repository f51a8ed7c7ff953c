//! IA3's places in text models by `model_type`: keys, values, and what the MLP's second layer reads, as its paper has it.

use wegeft::{AdapterConfig, Fused};

/// IA3 on a text model of this `model_type`. Where keys and values have no weight of their own, PEFT's table is followed:
/// all of GPT-2's is scaled, and so is Phi-3's; of ModernBERT, which that table lacks, keys and values alone.
pub fn ia3(model_type: &str) -> AdapterConfig {
    let (attention, mlp): (&[&str], &str) = match model_type {
        "bert" | "roberta" | "xlm-roberta" | "electra" => (&["key", "value"], "output.dense"),
        "distilbert" => (&["k_lin", "v_lin"], "ffn.lin2"),
        "deberta-v2" => (&["key_proj", "value_proj"], "output.dense"),
        "modernbert" => (&["attn.Wqkv"], "mlp.Wo"),
        "gpt2" => (&["c_attn"], "mlp.c_proj"),
        "phi3" => (&["qkv_proj"], "down_proj"),
        _ => (&["k_proj", "v_proj"], "down_proj"),
    };
    let config = AdapterConfig::ia3([mlp]).with_target_modules(attention.iter().copied().chain([mlp]));
    match model_type {
        "modernbert" => config.with_fused(Fused::qkv("attn.Wqkv", ["k", "v"])),
        _ => config,
    }
}
