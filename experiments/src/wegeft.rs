//! `wegeft` with all programs as subcommands, and a thin binary for each program.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, Parser, ValueHint};
use clap_complete::Shell;

use crate::cli::interrupt::Interrupter;
use crate::cli::output::{end, note, print};
use crate::cli::program::{catch_the_limit_on_files, matches, set_prefix, version, with_negative_numbers};
use crate::cli::remote::watched;
use crate::report::table::Frame;
use crate::run::files::replace_texts;
use crate::run::lock::Lock;
use crate::run::outcome::Outcome;
use crate::run::place::refuse_another;
use crate::sandbox::launcher;
use crate::suites::experiment::{self, Experiment, Preset};
use crate::{EXPERIMENTS, TOOLS};

/// The line before examples.
const EXAMPLES: &str = "Examples:\n";

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
    Some(with_examples(command, examples, if whole { "wegeft " } else { "" }))
}

/// `command` with its examples at the end of its help. If it has subcommands, each has those of `examples` that call it,
/// and the command itself the first of each. `before`: the words before them.
fn with_examples(command: Command, examples: &'static str, before: &'static str) -> Command {
    let of = |start: &str, most: usize| -> String {
        let lines = examples.lines().map(str::trim).filter(|line| line.starts_with(start));
        lines.take(most).map(|line| format!("  {before}{line}\n")).collect()
    };
    let name = command.get_name().to_string();
    let start = |inner: &Command| format!("{name} {} ", inner.get_name());
    let lines: String = match command.has_subcommands() {
        true => command.get_subcommands().map(|inner| of(&start(inner), 1)).collect(),
        false => of("", usize::MAX),
    };
    let command = command.mut_subcommands(|inner| {
        let lines = of(&start(&inner), usize::MAX);
        inner.after_help(format!("{EXAMPLES}{lines}"))
    });
    command.after_help(format!("{EXAMPLES}{lines}"))
}

fn run(name: &str, matches: &ArgMatches) -> Result<(), String> {
    watched(|| {
        if let Some(experiment) = experiment(name) {
            return experiment::main(experiment, &presets(), matches);
        }
        match TOOLS.iter().find(|tool| tool.name == name) {
            Some(tool) => (tool.run)(matches, &published),
            None => Err(format!("there is no program '{name}'")),
        }
    })
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
    let matches = with_negative_numbers(experiment::command(experiment)).try_get_matches_from(args);
    let matches = matches.map_err(|e| e.to_string())?;
    watched(|| experiment::run(experiment, &presets(), &matches, interrupter))
}

/// Runs the program `name` alone, as the thin binary of that name.
pub fn thin(name: &str) -> ExitCode {
    if let Some(code) = launcher::entry() {
        return code;
    }
    catch_the_limit_on_files();
    let Some(command) = command(name, false) else {
        note(format_args!("there is no program '{name}'"));
        return ExitCode::FAILURE;
    };
    match matches(command) {
        Ok(matches) => end(&called(name, &matches), run(name, &matches)),
        Err(code) => code,
    }
}

/// Print completions for a shell
#[derive(Parser)]
#[command(name = "completions")]
struct Completions {
    /// Shell to print completions for.
    shell: Shell,
}

/// Write a man page of each program into a folder
#[derive(Parser)]
#[command(name = "man")]
struct Man {
    /// Folder for the pages.
    #[arg(value_hint = ValueHint::DirPath)]
    folder: PathBuf,
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
    all.subcommands([
        with_examples(
            Completions::command(),
            "completions bash > ~/.local/share/bash-completion/completions/wegeft\ncompletions fish > ~/.config/fish/completions/wegeft.fish",
            "wegeft ",
        ),
        with_examples(
            Man::command(),
            "man ~/.local/share/man/man1\nman pages",
            "wegeft ",
        ),
    ])
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
    catch_the_limit_on_files();
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
    end(&called("wegeft", &matches), done)
}

/// The name of the program, with the subcommands that it was called with.
fn called(program: &str, matches: &ArgMatches) -> String {
    match matches.subcommand() {
        Some((name, inner)) => called(&format!("{program} {name}"), inner),
        None => program.to_string(),
    }
}

fn completions(matches: &ArgMatches) -> Result<(), String> {
    let Completions { shell } = Completions::from_arg_matches(matches).map_err(|e| e.to_string())?;
    print(script(shell))
}

/// The completions for `shell`.
fn script(shell: Shell) -> String {
    let mut text = Vec::new();
    let mut command = offered(&whole()).version(version()).propagate_version(true);
    clap_complete::generate(shell, &mut command, "wegeft", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// `command` as completions offer it: without its hidden flags, which clap_complete would offer too.
fn offered(command: &Command) -> Command {
    // clap needs names for as long as the program runs.
    let name: &'static str = command.get_name().to_string().leak();
    let kept = Command::new(name)
        .args(command.get_arguments().filter(|arg| !arg.is_hide_set()).cloned())
        .subcommands(command.get_subcommands().map(offered));
    match command.get_about() {
        Some(about) => kept.about(about.clone()),
        None => kept,
    }
}

fn man(matches: &ArgMatches) -> Result<(), String> {
    let Man { folder } = Man::from_arg_matches(matches).map_err(|e| e.to_string())?;
    refuse_another(&folder, false)?;
    let mut all = whole().version(version()).disable_help_subcommand(true);
    all.build();
    let mut texts = Vec::new();
    pages(&all, &mut texts)?;
    let _lock = Lock::for_writing(&folder)?;
    // Only pages are replaced.
    let is_other =
        |path: &Path| files::read_regular(path).is_ok_and(|old| !old.starts_with(b".ie ") && !old.is_empty());
    if let Some((name, _)) = texts.iter().find(|(name, _)| is_other(&folder.join(name))) {
        let path = folder.join(name);
        return Err(format!(
            "{} is no man page; choose another folder, or remove it",
            path.display()
        ));
    }
    replace_texts(&folder, None, &texts)?;
    print(format_args!("man pages written into {}", folder.display()))
}

/// Adds the page of `command`, with the name of its file, and those of its subcommands.
fn pages(command: &Command, texts: &mut Vec<(String, String)>) -> Result<(), String> {
    let name = command.get_bin_name().unwrap_or("wegeft");
    let source = format!("wegeft {}", version());
    let page = clap_mangen::Man::new(command.clone()).title(name).source(source);
    let mut text = Vec::new();
    page.render(&mut text)
        .map_err(|e| format!("the page of {name} cannot be made: {e}"))?;
    // clap_mangen has one heading for whatever follows the help; ours are examples.
    let text = String::from_utf8_lossy(&text).replace(&format!("\n.SH EXTRA\n{EXAMPLES}"), "\n.SH EXAMPLES\n");
    texts.push((page.get_filename(), text));
    command.get_subcommands().try_for_each(|inner| pages(inner, texts))
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
    fn completions_offer_closed_choices_and_no_hidden_flag() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
            let script = script(shell);
            assert!(
                script.contains("max-new-tokens") && !script.contains("internal-trial"),
                "{shell}"
            );
            assert!(!script.contains("--child"), "{shell}");
        }
        let bash = script(Shell::Bash);
        for offered in ["alpaca plain chat", "HumanEval MBPP MBPP-sanitized", "cub nabirds"] {
            assert!(bash.contains(&format!("compgen -W \"{offered}")), "{offered}");
        }
    }

    #[test]
    fn a_page_of_man_is_headed_by_its_command_and_ends_in_examples() {
        let folder = tempfile::tempdir().unwrap();
        let man = Man::command().get_matches_from([Path::new("man"), folder.path()]);
        super::man(&man).unwrap();
        let page = std::fs::read_to_string(folder.path().join("wegeft-adapter-merge.1")).unwrap();
        for part in [
            ".TH \"wegeft adapter merge\" 1",
            "\n.SH EXAMPLES\n",
            "wegeft adapter merge runs",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("EXTRA") && !page.contains("adapter inspect"), "{page}");
        let help = command("vtab", true).unwrap().render_help().to_string();
        assert!(help.contains("\n  wegeft vtab\n  wegeft vtab --data"), "{help}");
    }

    #[test]
    fn every_program_and_subcommand_has_two_or_three_examples_that_it_accepts() {
        let mut left: Vec<Command> = whole().get_subcommands().cloned().collect();
        while let Some(command) = left.pop() {
            let help = command.get_after_help().unwrap().to_string();
            let examples: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  ")).collect();
            let name = command.get_name();
            let subcommands = command.get_subcommands().count();
            match subcommands {
                0 => assert!((2..=3).contains(&examples.len()), "{name}: {examples:?}"),
                _ => assert_eq!(examples.len(), subcommands, "{name}: {examples:?}"),
            }
            for example in examples {
                let line = example.split(" > ").next().unwrap();
                // Every second part is in quotes.
                let parts = line.split('"').enumerate();
                let words = parts.flat_map(|(at, part)| match at % 2 {
                    0 => part.split_whitespace().map(String::from).collect::<Vec<_>>(),
                    _ => vec![part.to_string()],
                });
                let parsed = whole().try_get_matches_from(words);
                assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
            }
            left.extend(command.get_subcommands().cloned());
        }
    }

    /// `-h` shows no more of a flag than its first paragraph.
    #[test]
    fn the_first_paragraph_about_a_flag_of_a_tool_is_short() {
        let mut all = whole().version("0");
        all.build();
        let tools: Vec<&str> = TOOLS.iter().map(|tool| tool.name).collect();
        for command in all
            .get_subcommands()
            .filter(|command| tools.contains(&command.get_name()))
        {
            for arg in command.get_arguments() {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let (name, flag) = (command.get_name(), arg.get_id());
                assert!(help.chars().count() <= 125, "{name} {flag}: {help}");
            }
        }
    }

    #[test]
    fn an_error_names_the_subcommand() {
        let matches = whole().get_matches_from(["wegeft", "adapter", "merge", "a", "--out", "b"]);
        assert_eq!(called("wegeft", &matches), "wegeft adapter merge");
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
