//! The program `predict` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("predict")
}
