//! Fine-tunes a vision transformer on VTAB-style tasks.

use std::process::ExitCode;

use burn::train::Interrupter;
use clap::Parser;
use experiments::flags::Args;
use experiments::interrupt::stop_on_ctrl_c;
use experiments::output::end;
use experiments::vtab::vtab;

fn main() -> ExitCode {
    let args = Args::parse();
    let interrupter = Interrupter::new();
    let done = stop_on_ctrl_c(&interrupter).and_then(|()| vtab(&args, &interrupter));
    end("vtab", done.map(drop))
}
