//! Trains an adapter of a language model on instruction data.

use std::process::ExitCode;

use burn::train::Interrupter;
use clap::Parser;
use experiments::interrupt::stop_on_ctrl_c;
use experiments::language::finetune::finetune;
use experiments::language::flags::Args;
use experiments::output::end;

/// Trains an adapter of a language model on instruction data: instruction/input/output, prompt/completion or chat
/// messages, as JSON, JSONL or parquet.
///
/// The run folder holds config.toml, summary.json, report.html and, per method, metrics.jsonl, checkpoints/ and
/// adapter/ (Hugging Face PEFT's layout). The same command again goes on where the folder ends.
#[derive(Debug, Parser)]
#[command(version)]
struct Program {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    let Program { args } = Program::parse();
    let interrupter = Interrupter::new();
    let done = stop_on_ctrl_c(&interrupter).and_then(|()| finetune(&args, &interrupter));
    end("finetune", done.map(drop))
}
