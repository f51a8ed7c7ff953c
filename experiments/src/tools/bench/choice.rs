//! What can be measured: workloads and methods, and which flags each of them reads.

use clap::ValueEnum;
use wegeft::AdapterConfig;

use super::{Args, Checkpointing};

/// Workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// A ViT-Ti (12 blocks, 224 pixels, patches of 16), evaluation.
    VitTinyForward,
    /// A training step of it: loss, backward pass, AdamW.
    VitTinyStep,
    /// A ViT-S, evaluation.
    VitSForward,
    /// A training step of it.
    VitSStep,
    /// A ViT-B, evaluation.
    VitBForward,
    /// A training step of it.
    VitBStep,
    /// One adapted layer of 384 x 384, forward and backward.
    Adapter,
    /// A training step of a Llama of 100 million random weights.
    #[value(name = "llama-100m-step")]
    LlamaStep,
    /// A prompt, up to the logits after it.
    #[value(name = "llama-100m-prefill")]
    LlamaPrefill,
    /// One more token.
    #[value(name = "llama-100m-decode")]
    LlamaDecode,
    /// A training step of --model.
    LmStep,
    /// A prompt to --model.
    LmPrefill,
    /// One more token of --model.
    LmDecode,
}

impl Work {
    /// Its name on the command line.
    pub fn name(self) -> String {
        name(self)
    }

    /// True for training steps.
    pub fn is_step(self) -> bool {
        use Work::{LlamaStep, LmStep, VitBStep, VitSStep, VitTinyStep};
        matches!(self, VitTinyStep | VitSStep | VitBStep | LlamaStep | LmStep)
    }

    /// True for those that make one more token.
    pub fn is_decode(self) -> bool {
        matches!(self, Self::LlamaDecode | Self::LmDecode)
    }

    /// True for those of --model.
    pub fn is_of_model(self) -> bool {
        matches!(self, Self::LmStep | Self::LmPrefill | Self::LmDecode)
    }

    /// True for those of language models.
    pub fn is_language(self) -> bool {
        self.is_of_model() || matches!(self, Self::LlamaStep | Self::LlamaPrefill | Self::LlamaDecode)
    }

    /// Whether it reads this flag with some method.
    pub fn reads(self, flag: &str) -> bool {
        match flag {
            "--tokens" | "--dtype" => self.is_language(),
            "--model" | "--quantize" => self.is_of_model(),
            "--checkpointing" => self.is_step(),
            _ => true,
        }
    }

    fn has(self, method: Method) -> bool {
        match method {
            Method::Frozen => !(self.is_language() && self.is_step()),
            Method::BurnLora => !(self.is_language() || self == Self::Adapter),
            Method::Lora | Method::Wegeft | Method::Full => true,
        }
    }

    /// # Errors
    /// A method that this workload has not.
    pub fn check(self, method: Method) -> Result<(), String> {
        match self.has(method) {
            true => Ok(()),
            false => Err(self.refusal(method)),
        }
    }

    /// Why it cannot be measured with this method.
    pub fn refusal(self, method: Method) -> String {
        let others = listed(|method: Method| self.has(method));
        format!("--method {}: {} has {others}", method.name(), self.name())
    }
}

/// Methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// No adapter; vit-…-step trains only the head, and a step of a language model has nothing to train.
    Frozen,
    /// LoRA on attn.proj, or on the q, k, v, up and down projections.
    Lora,
    /// WeGeFT on the same.
    Wegeft,
    /// All weights.
    Full,
    /// Burn's own apply_lora; vit only.
    BurnLora,
}

impl Method {
    /// Its name on the command line.
    pub fn name(self) -> String {
        name(self)
    }

    /// Its adapter of rank `r` on the modules of these names; `None` if it has none of ours.
    pub fn config<const N: usize>(self, r: usize, modules: [&str; N]) -> Option<AdapterConfig> {
        match self {
            Self::Frozen => Some(AdapterConfig::linear_probing()),
            Self::Full => Some(AdapterConfig::full()),
            Self::Lora => Some(AdapterConfig::lora(r).with_target_modules(modules)),
            Self::Wegeft => Some(AdapterConfig::wegeft(r).with_target_modules(modules)),
            Self::BurnLora => None,
        }
    }

    /// True if it has a rank.
    fn has_rank(self) -> bool {
        !matches!(self, Self::Frozen | Self::Full)
    }
}

/// The name of a choice on the command line.
pub fn name<V: ValueEnum>(choice: V) -> String {
    let value = choice.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_string())
}

/// The names of those choices: `a, b and c`.
fn listed<V: ValueEnum + Copy>(of: impl Fn(V) -> bool) -> String {
    let names: Vec<String> = V::value_variants()
        .iter()
        .filter(|choice| of(**choice))
        .map(|choice| name(*choice))
        .collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => names.concat(),
    }
}

/// Checks that every workload has every method, and that each flag is read by one of them: what a flag does not change
/// must not look as if it did.
///
/// # Errors
/// A method that a workload has not, a flag that nothing reads, workloads of --model without it.
pub fn check(args: &Args) -> Result<(), String> {
    for work in &args.workload {
        args.method.iter().try_for_each(|method| work.check(*method))?;
        if work.is_of_model() && args.model.is_none() {
            return Err(format!("--workload {}: give the model as --model", work.name()));
        }
    }
    for (flag, given) in [
        ("--tokens", args.tokens.is_some()),
        ("--model", args.model.is_some()),
        ("--dtype", args.dtype.is_some()),
        ("--quantize", args.quantize.is_some()),
        ("--checkpointing", args.checkpointing.is_some()),
    ] {
        if given && !args.workload.iter().any(|work| work.reads(flag)) {
            let readers = listed(|work: Work| work.reads(flag));
            return Err(format!(
                "{flag} has no effect on --workload; it is for {readers}; leave it out"
            ));
        }
    }
    if args.checkpointing == Some(Checkpointing::Layers) && args.method.contains(&Method::BurnLora) {
        return Err("--checkpointing layers: --method burn-lora has balanced only".into());
    }
    match args.r.is_some() && !args.method.iter().any(|method| method.has_rank()) {
        true => Err(format!(
            "--r has no effect on --method; it is for {}; leave it out",
            listed(Method::has_rank)
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn checked(line: &str) -> Result<(), String> {
        let words = ["bench"].into_iter().chain(line.split_whitespace());
        let args = Args::try_parse_from(words).map_err(|e| e.to_string())?;
        check(&args)
    }

    #[test]
    fn what_nothing_reads_or_has_is_refused_by_name() {
        for (line, parts) in [
            ("--workload adapter --quantize int8", ["--quantize", "lm-decode"]),
            ("--workload adapter --model folder", ["--model", "lm-step"]),
            (
                "--workload adapter --checkpointing layers",
                ["--checkpointing", "vit-s-step"],
            ),
            ("--workload vit-s-step --dtype bf16", ["--dtype", "llama-100m-step"]),
            ("--workload vit-s-step --tokens 8", ["--tokens", "lm-prefill"]),
            ("--method frozen,full --r 8", ["--r ", "lora, wegeft and burn-lora"]),
            ("--workload lm-decode --method lora", ["lm-decode", "--model"]),
            (
                "--workload llama-100m-step",
                ["--method frozen", "lora, wegeft and full"],
            ),
            ("--workload adapter --method burn-lora", ["burn-lora", "adapter has"]),
            (
                "--workload vit-s-step --method burn-lora --checkpointing",
                ["layers", "burn-lora"],
            ),
            ("--workload vit-xxl-step", ["vit-xxl-step", "vit-b-step"]),
            ("--method dora", ["dora", "wegeft"]),
            ("--batch 0", ["--batch", "from 1 to"]),
            ("--rounds 0", ["--rounds", "from 1 to"]),
            ("--threads 0", ["--threads", "from 1 to"]),
            ("--seconds nan", ["--seconds", "from 0 to"]),
            ("--tokens 18446744073709551615", ["--tokens", "from 1 to"]),
            ("--r 18446744073709551615", ["--r", "from 1 to"]),
            ("--scaling s.svg --rounds 2", ["--scaling", "--rounds"]),
        ] {
            let message = checked(line).unwrap_err();
            assert!(parts.iter().all(|part| message.contains(part)), "{line}: {message}");
        }
        for line in [
            "",
            "--workload adapter,lm-decode --method lora --model folder --quantize int8",
            "--workload llama-100m-prefill --max-length 8 --dtype bf16",
            "--workload lm-step --method full --backbone folder --gradient-checkpointing",
            "--scaling s.svg --r 2",
        ] {
            checked(line).unwrap_or_else(|message| panic!("{line}: {message}"));
        }
    }
}
