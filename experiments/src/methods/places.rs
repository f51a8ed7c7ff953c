//! Where adapters go in text models, by `model_type`.

use wegeft::{AdapterConfig, Fused};

/// IA3 on a text model of this `model_type`: keys, values, and what the MLP's second layer reads, as its paper has it. Where
/// keys and values have no weight of their own, PEFT's table is followed: all of GPT-2's is scaled, and so is Phi-3's; of
/// ModernBERT, which that table lacks, keys and values alone.
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

/// Target modules of a language model of this `model_type`. The default names are those of a Llama; for a family that has
/// the same weights under other names, or several in one, they stand for the layers that hold them. Other names stay.
pub fn of_family(model_type: &str, targets: Vec<String>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for target in targets {
        let name = match (model_type, target.as_str()) {
            ("gpt2", "q_proj" | "k_proj" | "v_proj") => "c_attn",
            ("gpt2", "o_proj") => "attn.c_proj",
            ("gpt2", "up_proj") => "c_fc",
            ("gpt2", "down_proj") => "mlp.c_proj",
            ("phi3", "q_proj" | "k_proj" | "v_proj") => "qkv_proj",
            ("phi3", "gate_proj" | "up_proj") => "gate_up_proj",
            (_, own) => own,
        };
        // Three projections in one weight are one target.
        if !found.iter().any(|earlier| earlier == name) {
            found.push(name.into());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::of_family;

    #[test]
    fn the_default_names_stand_for_the_layers_that_hold_them() {
        let default = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"];
        let found =
            |model_type, names: &[&str]| of_family(model_type, names.iter().map(|name| (*name).into()).collect());
        assert_eq!(found("llama", &default), default);
        assert_eq!(found("gpt2", &default), ["c_attn", "c_fc", "mlp.c_proj"]);
        assert_eq!(found("phi3", &default), ["qkv_proj", "gate_up_proj", "down_proj"]);
        assert_eq!(found("gpt2", &["h.0.attn.c_attn"]), ["h.0.attn.c_attn"]);
    }
}
