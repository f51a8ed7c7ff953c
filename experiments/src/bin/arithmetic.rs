//! The program `arithmetic` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("arithmetic")
}
