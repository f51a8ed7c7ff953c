//! The program `gsm8k` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("gsm8k")
}
