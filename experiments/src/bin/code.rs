//! The program `code` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("code")
}
