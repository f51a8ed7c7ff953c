//! The program `adapter` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("adapter")
}
