//! The program `metamath` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("metamath")
}
