//! Commonsense reasoning: trains and evaluates language models.

use std::process::ExitCode;

use burn::train::Interrupter;
use clap::Parser;
use experiments::interrupt::stop_on_ctrl_c;
use experiments::language::commonsense::commonsense;
use experiments::language::flags::Args;
use experiments::output::end;

/// Trains language models on commonsense questions and evaluates them on eight sets. With no argument it runs on
/// generated questions and the small model that ships with the repository.
///
/// The run folder holds config.toml, summary.json, report.html and, per method, metrics.jsonl, checkpoints/, adapter/
/// (Hugging Face PEFT's layout) and a file of answers per set. The same command again goes on where the folder ends,
/// in the middle of a set too.
#[derive(Debug, Parser)]
#[command(version)]
struct Program {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    let Program { args } = Program::parse();
    let interrupter = Interrupter::new();
    let done = stop_on_ctrl_c(&interrupter).and_then(|()| commonsense(&args, &interrupter));
    end("commonsense", done.map(drop))
}
