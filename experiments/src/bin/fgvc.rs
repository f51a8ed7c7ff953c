//! The program `fgvc` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("fgvc")
}
