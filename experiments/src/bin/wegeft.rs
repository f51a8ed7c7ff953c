//! All programs as subcommands.

fn main() -> std::process::ExitCode {
    experiments::wegeft::main()
}
