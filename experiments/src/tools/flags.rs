//! What the flags of the tools share: closed choices, and the groups of the help.

use clap::Command;

/// Data types of weights in memory.
pub const DTYPES: [&str; 3] = ["f32", "bf16", "f16"];
/// Data types of quantized weights.
pub const QUANTIZED: [&str; 2] = ["int8", "int4"];

/// The group of the help that a flag belongs to.
fn group(flag: &str) -> Option<&'static str> {
    Some(match flag {
        "device" | "seed" | "threads" | "seconds" | "warm_up" | "rounds" => "Run",
        "out" | "output" | "json" | "logits" | "sheets_only" | "tile" | "all" | "scaling" | "compare" => "Output",
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
