//! The program `worker` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("worker")
}
