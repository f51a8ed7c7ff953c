//! The program `vtab` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("vtab")
}
