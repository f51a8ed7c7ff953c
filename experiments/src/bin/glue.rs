//! The program `glue` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("glue")
}
