//! The program `generate` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("generate")
}
