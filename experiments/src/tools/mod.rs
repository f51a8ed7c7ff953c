//! The programs that are not experiments.

pub mod adapter;
pub mod bench;
pub mod chat;
mod flags;
pub mod generate;
mod own_file;
pub mod predict;
pub mod prepare;
pub mod pretrain;
mod prompts;
pub mod report;
pub mod token_files;
pub mod visualize;
pub mod worker;

use clap::{ArgMatches, Command, CommandFactory, Parser};

use crate::report::table::Known;

/// A program that is not an experiment.
pub struct Tool {
    /// Its name: subcommand and thin binary.
    pub name: &'static str,
    /// Its flags.
    pub command: fn() -> Command,
    /// Two or three commands, one per line.
    pub examples: &'static str,
    /// Runs it, with the published rows of the experiments.
    pub run: fn(&ArgMatches, Known) -> Result<(), String>,
}

impl Tool {
    /// Its command.
    pub fn command(&self) -> Command {
        flags::grouped((self.command)().name(self.name))
    }
}

fn parsed<A: Parser>(matches: &ArgMatches) -> Result<A, String> {
    A::from_arg_matches(matches).map_err(|e| e.to_string())
}

/// Predicts labels of images.
pub const PREDICT: Tool = Tool {
    name: "predict",
    command: predict::Args::command,
    examples: "predict photo.jpg --adapter runs/mine/pets/wegeft/adapter\npredict --labels pets/test.txt --adapter runs/mine/pets/wegeft/adapter --json",
    run: |matches, _| predict::predict(&parsed(matches)?),
};

/// Continues prompts.
pub const GENERATE: Tool = Tool {
    name: "generate",
    command: generate::Args::command,
    examples: "generate --prompt \"Count on from 7.\"\ngenerate --model org/name --chat --prompt \"Name three primes.\" --dtype bf16\ngenerate --model org/name --adapter runs/mine/wegeft/adapter --prompts prompts.txt --json",
    run: |matches, _| generate::generate(&parsed(matches)?),
};

/// Chats with a model.
pub const CHAT: Tool = Tool {
    name: "chat",
    command: chat::Args::command,
    examples: "chat --model HuggingFaceTB/SmolLM2-135M-Instruct --dtype bf16\nchat --model org/name --adapter runs/mine/wegeft/adapter",
    run: |matches, _| chat::chat(&parsed(matches)?),
};

/// Works on adapter folders.
pub const ADAPTER: Tool = Tool {
    name: "adapter",
    command: adapter::Args::command,
    examples: "adapter inspect runs/mine/wegeft/adapter
        adapter inspect runs/mine/wegeft/adapter --all
        adapter diff runs/mine/wegeft/adapter runs/mine/lora/adapter --model org/name
        adapter diff runs/before/wegeft/adapter runs/after/wegeft/adapter
        adapter merge runs/mine/wegeft/adapter --out merged
        adapter merge runs/mine/wegeft/adapter --model org/name --dtype bf16 --out merged
        adapter export-lora runs/mine/wegeft/adapter --out lora
        adapter export-lora runs/mine/wegeft/adapter --model org/name --out lora
        adapter convert runs/mine/lora/adapter --out wegeft --r 16
        adapter convert runs/mine/lora/adapter --out wegeft --r 64 --sharing site",
    run: |matches, _| adapter::adapter(&parsed(matches)?),
};

/// Draws token-cluster maps.
pub const VISUALIZE: Tool = Tool {
    name: "visualize",
    command: visualize::program::Args::command,
    examples: "visualize photo.jpg --adapter runs/vtab/textures/wegeft/adapter\nvisualize --task textures --adapter runs/vtab/textures/wegeft/adapter --count 8",
    run: |matches, _| visualize::program::visualize(&parsed(matches)?),
};

/// Makes reports on run folders.
pub const REPORT: Tool = Tool {
    name: "report",
    command: report::Args::command,
    examples: "report runs/vtab\nreport runs/one runs/two --out runs/compared",
    run: |matches, known| report::report(&parsed(matches)?, known),
};

/// Makes VTAB-1k's task folders.
pub const PREPARE: Tool = Tool {
    name: "prepare",
    command: prepare::Args::command,
    examples: "prepare --tfds ~/tensorflow_datasets --out vtab-1k\nprepare --tfds ~/tensorflow_datasets --out vtab-1k --task cifar,dtd",
    run: |matches, _| prepare::prepare(&parsed(matches)?),
};

/// Makes the vision transformer that ships with the program.
pub const PRETRAIN: Tool = Tool {
    name: "pretrain",
    command: pretrain::vision::Args::command,
    examples: "pretrain --steps 300 --out runs/small\npretrain --d-model 192 --depth 6",
    run: |matches, _| pretrain::vision::pretrain(&parsed(matches)?),
};

/// Makes the language model that ships with the program.
pub const PRETRAIN_LM: Tool = Tool {
    name: "pretrain-lm",
    command: pretrain::language::Args::command,
    examples: "pretrain-lm --steps 300 --out runs/small-lm\npretrain-lm --d-model 192 --depth 6",
    run: |matches, _| pretrain::language::pretrain(&parsed(matches)?),
};

/// Measures the speed of forward passes and steps.
pub const BENCH: Tool = Tool {
    name: "bench",
    command: bench::Args::command,
    examples: "bench --workload vit-s-step --method lora,wegeft --rounds 5\nbench --workload lm-decode --model org/name --dtype bf16",
    run: |matches, _| bench::bench(&parsed(matches)?),
};

/// Lends devices of this machine to trainings on others.
pub const WORKER: Tool = Tool {
    name: "worker",
    command: worker::Args::command,
    examples: "worker --token-file token\nworker --device cuda:0,cuda:1 --port 3000 --token-file token",
    run: |matches, _| worker::worker(&parsed(matches)?),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TOOLS;

    fn parsed(line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let tool = TOOLS.iter().find(|tool| tool.name == words[0]).unwrap();
        let matches = tool.command().try_get_matches_from(&words).map_err(|e| e.to_string())?;
        match words[0] {
            "predict" => super::parsed::<predict::Args>(&matches).map(drop),
            "generate" => super::parsed::<generate::Args>(&matches).map(drop),
            "chat" => super::parsed::<chat::Args>(&matches).map(drop),
            "adapter" => super::parsed::<adapter::Args>(&matches).map(drop),
            "visualize" => super::parsed::<visualize::program::Args>(&matches).map(drop),
            "prepare" => super::parsed::<prepare::Args>(&matches).map(drop),
            "pretrain" => super::parsed::<pretrain::vision::Args>(&matches).map(drop),
            "pretrain-lm" => super::parsed::<pretrain::language::Args>(&matches).map(drop),
            name => panic!("{name} has no line here"),
        }
    }

    #[test]
    fn flags_have_their_old_names_and_those_of_other_programs_too() {
        for line in [
            "visualize --task a --adapter b --count 2",
            "visualize --sets a --adapter b",
            "prepare --tfds a --out b --sets cifar,dtd",
            "predict a --out b",
            "predict a --output b",
            "predict a --output-dir b",
            "pretrain --logging-steps 5 -q",
            "pretrain-lm --max-length 8 -v",
            "pretrain-lm --length 8 --log-steps 5",
            "chat --template plain --top-k 0 --seed 1",
            "generate --template chat --quantize int4 --dtype f16",
            "adapter convert a --out b --sharing site --side output",
        ] {
            parsed(line).unwrap_or_else(|message| panic!("{line}: {message}"));
        }
    }

    #[test]
    fn values_out_of_range_and_flags_without_effect_are_refused_by_name() {
        const HUGE: &str = "18446744073709551615";
        for (line, flag) in [
            ("visualize a --adapter b --count 3", "--count"),
            ("visualize a --adapter b --data c", "--data"),
            ("visualize a --adapter b --class c", "--class"),
            ("visualize a --adapter b --tile 4294967295", "--tile"),
            ("visualize --task a --adapter b --count 0", "--count"),
            ("predict a --top-k 0", "--top-k"),
            ("predict a --batch-size 0", "--batch-size"),
            ("predict a --out b --json", "--json"),
            ("pretrain --classes 1", "--classes"),
            ("pretrain --steps HUGE", "--steps"),
            ("pretrain --d-model 18446744073709551612", "--d-model"),
            ("pretrain --depth HUGE", "--depth"),
            ("pretrain --batch-size 0", "--batch-size"),
            ("pretrain --log-steps 0", "--log-steps"),
            ("pretrain-lm --length HUGE", "--max-length"),
            ("pretrain-lm --max-length 2049", "--max-length"),
            ("pretrain-lm --vocab-size 256", "--vocab-size"),
            ("generate --max-new-tokens HUGE", "--max-new-tokens"),
            ("generate --num-beams HUGE", "--num-beams"),
            ("generate --num-beams 2 --length-penalty nan", "--length-penalty"),
            ("generate --top-k HUGE", "--top-k"),
            ("generate --no-repeat-ngram-size HUGE", "--no-repeat-ngram-size"),
            ("generate --logits a --stop b", "--stop"),
            ("generate --input-ids a --system b", "--system"),
            ("generate --template vicuna", "--template"),
            ("chat --max-new-tokens 0", "--max-new-tokens"),
            ("adapter convert a --out b --sharing none", "--sharing"),
        ] {
            let message = parsed(&line.replace("HUGE", HUGE)).unwrap_err();
            assert!(message.contains(flag), "{line}: {message}");
        }
    }
}
