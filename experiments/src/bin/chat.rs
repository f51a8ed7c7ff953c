//! The program `chat` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("chat")
}
