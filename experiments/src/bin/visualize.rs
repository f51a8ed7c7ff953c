//! The program `visualize` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("visualize")
}
