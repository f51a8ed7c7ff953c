//! Fine-tunes a vision transformer on the FGVC data sets.

use std::process::ExitCode;

use burn::train::Interrupter;
use clap::{CommandFactory, FromArgMatches};
use experiments::fgvc::fgvc;
use experiments::flags::Args;
use experiments::interrupt::stop_on_ctrl_c;
use experiments::output::end;

const ABOUT: &str = "Fine-tunes a vision transformer on CUB-200-2011, NABirds, Oxford Flowers, Stanford Dogs and Stanford \
    Cars (tasks cub, nabirds, flowers, dogs, cars) and prints the table of results. --data is the folder that holds their \
    unpacked archives, or train.json, val.json and test.json of VPT or TOAST beside the pictures.";

fn main() -> ExitCode {
    let command = Args::command()
        .name("fgvc")
        .about(ABOUT)
        .long_about(ABOUT)
        .mut_arg("out", |arg| arg.default_value("runs/fgvc"));
    let args = Args::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    let interrupter = Interrupter::new();
    let done = stop_on_ctrl_c(&interrupter).and_then(|()| fgvc(&args, &interrupter));
    end("fgvc", done.map(drop))
}
