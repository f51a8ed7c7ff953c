//! `wegeft` with all programs as subcommands, and a thin binary for each program.

use std::process::ExitCode;

use burn::train::Interrupter;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, value_parser};
use clap_complete::Shell;

use crate::cli::output::{end, note, print};
use crate::cli::program::{matches, set_prefix};
use crate::report::table::Frame;
use crate::run::outcome::Outcome;
use crate::sandbox::launcher;
use crate::suites::experiment::{self, Experiment, Preset};
use crate::{EXPERIMENTS, TOOLS};

/// The experiment of that name.
fn experiment(name: &str) -> Option<&'static dyn Experiment> {
    EXPERIMENTS
        .iter()
        .copied()
        .find(|experiment| experiment.text().name == name)
}

/// Columns and published rows of an experiment whose tasks are `found`.
fn published(name: &str, found: &[String]) -> Option<Frame> {
    experiment(name)?.published(found)
}

/// The command of a program; `whole`: as a subcommand of `wegeft`, which stands in its examples.
fn command(name: &str, whole: bool) -> Option<Command> {
    let (command, examples) = match experiment(name) {
        Some(experiment) => (experiment::command(experiment), experiment.text().examples),
        None => {
            let tool = TOOLS.iter().find(|tool| tool.name == name)?;
            (tool.command(), tool.examples)
        }
    };
    let before = if whole { "  wegeft " } else { "  " };
    let lines = examples.trim().lines().map(|line| format!("{before}{}\n", line.trim()));
    Some(command.after_help(format!("Examples:\n{}", lines.collect::<String>())))
}

fn run(name: &str, matches: &ArgMatches) -> Result<(), String> {
    if let Some(experiment) = experiment(name) {
        return experiment::main(experiment, &presets(), matches);
    }
    match TOOLS.iter().find(|tool| tool.name == name) {
        Some(tool) => (tool.run)(matches, &published),
        None => Err(format!("there is no program '{name}'")),
    }
}

/// The presets of all programs.
fn presets() -> Vec<Preset> {
    let presets = EXPERIMENTS.iter().flat_map(|experiment| experiment.text().presets);
    presets
        .map(|preset| Preset {
            name: preset.name,
            text: preset.text,
        })
        .collect()
}

/// Runs an experiment in this process; `args` are its command line, its name first.
///
/// # Errors
/// One sentence: wrong flags, bad settings, data or weights, a trial that failed, an interruption.
pub fn outcomes<'a>(
    args: impl IntoIterator<Item = &'a str>,
    interrupter: &Interrupter,
) -> Result<Vec<Outcome>, String> {
    let args: Vec<&str> = args.into_iter().collect();
    let name = args.first().copied().unwrap_or_default();
    let experiment = experiment(name).ok_or_else(|| format!("there is no experiment '{name}'"))?;
    let matches = experiment::command(experiment).try_get_matches_from(args);
    experiment::run(
        experiment,
        &presets(),
        &matches.map_err(|e| e.to_string())?,
        interrupter,
    )
}

/// Runs the program `name` alone, as the thin binary of that name.
pub fn thin(name: &str) -> ExitCode {
    if let Some(code) = launcher::entry() {
        return code;
    }
    let Some(command) = command(name, false) else {
        note(format_args!("there is no program '{name}'"));
        return ExitCode::FAILURE;
    };
    match matches(command) {
        Ok(matches) => end(name, run(name, &matches)),
        Err(code) => code,
    }
}

/// Shell completions.
#[derive(Args)]
struct Completions {
    /// Shell to print completions for.
    #[arg(value_parser = value_parser!(Shell))]
    shell: Shell,
}

/// The whole command: every program as a subcommand.
pub fn whole() -> Command {
    let mut all = Command::new("wegeft")
        .about("Weight-generative fine-tuning, its baselines and their experiments")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .infer_subcommands(true)
        .propagate_version(true);
    for name in names() {
        all = all.subcommands(command(name, true));
    }
    let completions = Completions::augment_args(Command::new("completions"));
    all.subcommand(completions.about("Print shell completions: wegeft completions bash > FILE"))
        .subcommand(
            Command::new("man")
                .about("Write a man page of each program into a folder")
                .arg(
                    Arg::new("folder")
                        .required(true)
                        .help("Folder for the pages")
                        .value_parser(value_parser!(std::path::PathBuf)),
                ),
        )
}

fn names() -> impl Iterator<Item = &'static str> {
    let experiments = EXPERIMENTS.iter().map(|experiment| experiment.text().name);
    experiments.chain(TOOLS.iter().map(|tool| tool.name))
}

/// `wegeft`: all programs as subcommands.
pub fn main() -> ExitCode {
    if let Some(code) = launcher::entry() {
        return code;
    }
    let matches = match matches(whole()) {
        Ok(matches) => matches,
        Err(code) => return code,
    };
    let Some((name, given)) = matches.subcommand() else {
        return ExitCode::from(2);
    };
    set_prefix(vec![name.to_string()]);
    let done = match name {
        "completions" => completions(given),
        "man" => man(given),
        name => run(name, given),
    };
    end(&format!("wegeft {name}"), done)
}

fn completions(matches: &ArgMatches) -> Result<(), String> {
    let Completions { shell } = Completions::from_arg_matches(matches).map_err(|e| e.to_string())?;
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut whole(), "wegeft", &mut text);
    print(String::from_utf8_lossy(&text))
}

fn man(matches: &ArgMatches) -> Result<(), String> {
    let folder = matches.get_one::<std::path::PathBuf>("folder").ok_or("give a folder")?;
    let error = |e: std::io::Error| format!("cannot write into {}: {e}", folder.display());
    files::create_folder(folder).map_err(error)?;
    clap_mangen::generate_to(whole().version(crate::cli::program::version()), folder).map_err(error)?;
    print(format_args!("man pages written into {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::Wing;

    #[test]
    fn every_program_s_flags_hold_together_and_no_name_occurs_twice() {
        whole().debug_assert();
        let mut names: Vec<&str> = names().collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn the_paper_s_language_presets_draw_batches_at_random() {
        let language = EXPERIMENTS
            .iter()
            .filter(|experiment| experiment.wing() == Wing::Language);
        let presets: Vec<&Preset> = language.flat_map(|experiment| experiment.text().presets).collect();
        let named = |part: &str| presets.iter().filter(|preset| preset.name.starts_with(part)).count();
        assert!(named("paper-") >= 6 && named("old-") == 2);
        for preset in presets {
            let table: toml::Table = toml::from_str(preset.text).unwrap();
            // PEFT's comparison, which is not the paper's, groups batches by length.
            let grouped = table["group_by_length"].as_bool();
            assert_eq!(grouped, Some(preset.name.starts_with("peft-")), "{}", preset.name);
            // In the old code, the loss of a step is the mean of its batches' means.
            let means = table.get("mean_of_batch_means").and_then(toml::Value::as_bool);
            assert_eq!(means == Some(true), preset.name.starts_with("old-"), "{}", preset.name);
        }
    }
}
