//! The program `classify` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("classify")
}
