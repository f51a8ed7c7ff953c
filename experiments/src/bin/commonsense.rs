//! The program `commonsense` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("commonsense")
}
