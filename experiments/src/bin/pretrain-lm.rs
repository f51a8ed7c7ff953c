//! The program `pretrain-lm` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("pretrain-lm")
}
