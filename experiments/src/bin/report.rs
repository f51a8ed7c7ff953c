//! The program `report` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("report")
}
