//! The program `instruct` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("instruct")
}
