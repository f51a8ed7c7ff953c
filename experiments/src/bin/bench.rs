//! The program `bench` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("bench")
}
