//! The program `prepare` by itself, under its earlier name.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("prepare")
}
