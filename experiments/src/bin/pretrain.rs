//! The program `pretrain` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("pretrain")
}
