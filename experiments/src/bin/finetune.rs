//! The program `finetune` by itself.

fn main() -> std::process::ExitCode {
    experiments::wegeft::thin("finetune")
}
