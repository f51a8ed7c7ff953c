//! Trains an adapter of a language model on instruction data.

use burn::train::Interrupter;
use clap::Parser;
use experiments::ctrl_c::stop_on_ctrl_c;
use experiments::language::finetune::finetune;
use experiments::language::settings::Args;

/// Trains an adapter of a language model on instruction data: instruction/input/output, prompt/completion or chat
/// messages, as JSON or JSONL.
///
/// The run folder holds config.toml, summary.json, report.html and, per method, metrics.jsonl, checkpoints/ and
/// adapter/ (Hugging Face PEFT's layout). The same command again goes on where the folder ends.
#[derive(Debug, Parser)]
#[command(version)]
struct Program {
    #[command(flatten)]
    args: Args,
}

fn main() {
    let Program { args } = Program::parse();
    let interrupter = Interrupter::new();
    if let Err(message) = stop_on_ctrl_c(&interrupter).and_then(|()| finetune(&args, &interrupter)) {
        eprintln!("finetune: {message}");
        std::process::exit(1);
    }
}
