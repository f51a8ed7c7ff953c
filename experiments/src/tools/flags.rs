//! What the flags of the tools share: ranges, closed choices, and the groups of the help.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use backbones::lm::{LoadOptions, Quantize};
use clap::{Args, Command, ValueEnum};

use crate::train::precision::Dtype;

/// A parser of numbers in `range`, which no flag may leave: what is far beyond it overflows or fills the memory. `kind`
/// says what the numbers are, such as `a whole number`.
pub fn within<T>(
    kind: &'static str,
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("it must be {kind} from {} to {}", range.start(), range.end()))
    }
}

/// A parser of whole numbers in `range`.
pub fn whole(range: RangeInclusive<usize>) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    within("a whole number", range)
}

/// Data type of quantized weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Quantized {
    /// 8 bits.
    Int8,
    /// 4 bits.
    Int4,
}

impl From<Quantized> for Quantize {
    fn from(quantized: Quantized) -> Self {
        match quantized {
            Quantized::Int8 => Self::Int8,
            Quantized::Int4 => Self::Int4,
        }
    }
}

/// How a language model's weights are held in memory.
#[derive(Debug, Args)]
pub struct Weights {
    /// Data type of the weights in memory.
    ///
    /// The two 16-bit types halve the memory, and with it the time per token.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// Quantize the weights of linear layers.
    ///
    /// On a CPU, each weight takes one byte in both.
    #[arg(long, value_enum)]
    pub quantize: Option<Quantized>,
}

impl Weights {
    /// As a model is loaded with them.
    pub fn options(&self) -> LoadOptions {
        LoadOptions {
            precision: self.dtype.into(),
            quantize: self.quantize.map(Into::into),
        }
    }
}

/// How each token is drawn.
#[derive(Debug, Args)]
pub struct Drawing {
    /// Sample only from this many most likely tokens; 0 for all [default: the model's, or else 50 as in transformers].
    #[arg(long, value_parser = whole(0..=u32::MAX as usize))]
    pub top_k: Option<usize>,
    /// Sample only from the most likely tokens whose total probability reaches this value [default: the model's, or
    /// else 1].
    #[arg(long)]
    pub top_p: Option<f64>,
    /// Seed for sampling [default: 42].
    #[arg(long)]
    pub seed: Option<u64>,
}

impl Drawing {
    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or(42)
    }

    /// Those of its flags that were given.
    pub fn given(&self) -> Vec<&'static str> {
        let flags = [
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
            ("--seed", self.seed.is_some()),
        ];
        flags
            .into_iter()
            .filter(|(_, given)| *given)
            .map(|(flag, _)| flag)
            .collect()
    }
}

/// The group of the help that a flag belongs to.
fn group(flag: &str) -> Option<&'static str> {
    Some(match flag {
        "device" | "seed" | "threads" | "seconds" | "warm_up" | "rounds" => "Run",
        "out" | "json" | "logits" | "sheets_only" | "tile" | "all" | "scaling" | "compare" => "Output",
        "backbone" | "model" | "adapter" | "merge" | "dtype" | "quantize" => "Model",
        "labels" | "image_size" | "resize" | "max_image_pixels" | "task" | "data" | "class" | "count" | "tfds"
        | "any_version" | "prompt" | "prompts" | "input_ids" | "chat" | "template" | "system" | "batch_size" => "Data",
        "max_new_tokens"
        | "sample"
        | "temperature"
        | "top_k"
        | "top_p"
        | "num_beams"
        | "length_penalty"
        | "repetition_penalty"
        | "no_repeat_ngram_size"
        | "stop" => "Generation",
        "workload" | "method" | "batch" | "tokens" | "r" | "alpha" | "sharing" | "side" | "checkpointing" => "Work",
        _ => return None,
    })
}

/// `command` and its subcommands with their flags in groups.
pub fn grouped(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let found = group(arg.get_id().as_str());
        let is_flag = arg.get_long().is_some() && arg.get_help_heading().is_none();
        match found.filter(|_| is_flag) {
            Some(group) => arg.help_heading(group),
            None => arg,
        }
    });
    command.mut_subcommands(grouped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_refused_with_the_range() {
        let batch = whole(1..=64);
        assert_eq!((batch("1"), batch("64")), (Ok(1), Ok(64)));
        for text in ["0", "65", "18446744073709551616", "1.5", "x", ""] {
            assert_eq!(
                batch(text),
                Err("it must be a whole number from 1 to 64".into()),
                "{text}"
            );
        }
        let seconds = within("a number", 0.0..=9.5);
        assert_eq!(seconds("0.5"), Ok(0.5));
        for text in ["nan", "inf", "-1", "10"] {
            assert_eq!(seconds(text), Err("it must be a number from 0 to 9.5".into()), "{text}");
        }
    }
}
