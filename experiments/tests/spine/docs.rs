//! The guide: its pages are listed, its links lead somewhere, its commands and flags are ones that the program accepts,
//! and the generated pages are what the program says today. UPDATE_DOCS=1 writes those pages again.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// README, CONTRIBUTING and the pages of the guide.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    paths.extend(
        std::fs::read_dir(root().join("docs"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "md")),
    );
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap()))
        .collect()
}

/// The targets of `](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The names that links give to the headings of a page, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let outside = text.lines().filter(|line| {
        fenced ^= line.trim_start().starts_with("```");
        !fenced
    });
    let name = |heading: &str| -> String {
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() })
            .collect()
    };
    outside
        .filter(|line| line.starts_with('#'))
        .map(|line| name(line.trim_start_matches('#').trim()))
        .collect()
}

/// The lines of the fenced and the indented blocks, joined where they end in a backslash.
fn code_lines(text: &str) -> Vec<String> {
    let (mut lines, mut fenced, mut shell) = (Vec::new(), false, true);
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fenced = !fenced;
            shell = language.is_empty() || language == "sh";
        } else if (fenced && shell) || (!fenced && line.starts_with("    ")) {
            lines.push(line.trim().to_string());
        }
    }
    lines
        .join("\n")
        .replace("\\\n", " ")
        .lines()
        .map(str::to_string)
        .collect()
}

/// The words of a command line: quotes hold together, `#` begins a comment, `>` the name of a file for the output.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            '#' | '>' if !quoted && word.is_empty() => break,
            ' ' if !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => word.push(other),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The arguments of `wegeft` in a line of code, if it is one that calls it.
fn command_line(line: &str) -> Option<Vec<String>> {
    let line = line.trim_start_matches("$ ");
    let after = |start: &str| line.strip_prefix(start).map(words);
    if let Some(words) = after("wegeft ") {
        return Some(words);
    }
    if let Some((_, program)) = line.split_once("-p experiments -- ")
        && line.starts_with("cargo run")
    {
        return Some(words(program));
    }
    let (_, program) = line
        .split_once("-p experiments --bin ")
        .filter(|_| line.starts_with("cargo run"))?;
    let mut words = words(program);
    words.retain(|word| word != "--");
    if words.first().is_some_and(|name| name == "wegeft") {
        words.remove(0);
    }
    Some(words)
}

#[test]
fn every_page_of_the_guide_is_listed_and_every_link_leads_to_a_file_and_a_heading() {
    let summary = std::fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let listed: BTreeSet<&str> = links(&summary).collect();
    let others = [
        "SECURITY.md",
        "CHANGELOG.md",
        "crates/wegeft/README.md",
        "crates/kernels/README.md",
        "crates/backbones/README.md",
        "crates/files/README.md",
    ];
    let others = others.map(|name| {
        let path = root().join(name);
        (path.clone(), std::fs::read_to_string(&path).unwrap())
    });
    let mut count = 0;
    for (path, text) in pages().into_iter().chain(others) {
        let folder = path.parent().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let of_the_guide = folder.ends_with("docs");
        if of_the_guide && name != "SUMMARY.md" {
            assert!(listed.contains(name), "{name} is not in docs/SUMMARY.md");
        }
        for link in links(&text).filter(|link| !link.contains("://")) {
            let page = path.display();
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            // mdBook copies no file from outside docs/.
            assert!(
                !of_the_guide || !file.starts_with(".."),
                "{page}: {link} is not in the guide"
            );
            let target = if file.is_empty() {
                path.clone()
            } else {
                folder.join(file)
            };
            assert!(target.exists(), "{page}: {link} is not there");
            if !heading.is_empty() {
                count += 1;
                let headings = anchors(&std::fs::read_to_string(&target).unwrap());
                assert!(
                    headings.contains(heading),
                    "{page}: {link} has no such heading: {headings:?}"
                );
            }
        }
    }
    assert!(count > 0, "no link to a heading is found");
}

#[test]
fn every_command_of_the_guide_is_one_that_the_program_accepts() {
    let mut count = 0;
    for (path, text) in pages() {
        for line in code_lines(&text) {
            for line in line.split("; ") {
                let Some(arguments) = command_line(line) else { continue };
                // Help, versions and shortened lines are no whole commands.
                if arguments
                    .iter()
                    .any(|word| word.contains('…') || word.starts_with('[') || word == "...")
                {
                    continue;
                }
                count += 1;
                let given = std::iter::once("wegeft".to_string()).chain(arguments);
                if let Err(error) = experiments::wegeft::whole().version("0").try_get_matches_from(given) {
                    let helps = matches!(
                        error.kind(),
                        clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion
                    );
                    assert!(helps, "{}: {line}\n{error}", path.display());
                }
            }
        }
    }
    assert!(count > 20, "{count} commands found");
}

/// `text` in one line of a table.
fn cell(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

fn option_row(argument: &Arg) -> String {
    let mut names = Vec::new();
    if let Some(long) = argument.get_long() {
        names.push(format!("`--{long}`"));
    }
    names.extend(argument.get_short().map(|short| format!("`-{short}`")));
    if names.is_empty() {
        names.push(format!("`{}`", argument.get_id().as_str().to_uppercase()));
    }
    let mut notes = Vec::new();
    let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let possible: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    let boolean = possible.iter().all(|value| value == "`true`" || value == "`false`");
    if takes_value && !boolean {
        notes.push(possible.join(", "));
    }
    let default: Vec<String> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    if takes_value && !default.is_empty() {
        notes.push(format!("default `{}`", default.join(" ")));
    }
    let notes = notes.join("; ");
    // The page is the place for what `-h` leaves out; the fields of methods have a page of their own.
    let long = argument.get_long_help().filter(|_| argument.get_id() != "set");
    let help = long.or(argument.get_help());
    let help = help.map(|help| help.to_string()).unwrap_or_default();
    let help = help.trim_end_matches('.');
    format!("| {} | {} | {notes} |\n", names.join(", "), cell(help))
}

fn describe(page: &mut String, command: &Command, name: &str, level: usize) {
    let heading = "#".repeat(level);
    let about = command.get_about().map(|about| about.to_string()).unwrap_or_default();
    write!(page, "\n{heading} {name}\n\n{}.\n", cell(about.trim_end_matches('.'))).unwrap();
    let long = command
        .get_long_about()
        .map(|long| long.to_string())
        .unwrap_or_default();
    if let Some((_, more)) = long.split_once("\n\n") {
        write!(page, "\n{}\n", more.trim().replace('<', "&lt;")).unwrap();
    }
    let arguments: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set() && !["help", "version"].contains(&argument.get_id().as_str()))
        .collect();
    let mut headings: Vec<&str> = Vec::new();
    for argument in &arguments {
        let heading = argument.get_help_heading().unwrap_or("Options");
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for heading in headings {
        write!(page, "\n| {heading} | | |\n| --- | --- | --- |\n").unwrap();
        for argument in &arguments {
            if argument.get_help_heading().unwrap_or("Options") == heading {
                page.push_str(&option_row(argument));
            }
        }
    }
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        describe(page, inner, &format!("{name} {}", inner.get_name()), level + 1);
    }
}

#[test]
fn the_page_of_commands_is_what_the_program_says() {
    let mut page = String::from(
        "# Every command\n\nMade from the program's own definitions by a test; `wegeft COMMAND --help` says the same, and more. The names of flags, \
         with underscores in place of dashes, are those of the fields in TOML files.\n",
    );
    for command in experiments::wegeft::whole().get_subcommands() {
        describe(&mut page, command, &format!("wegeft {}", command.get_name()), 2);
    }
    compare("commands.md", &page);
}

/// Compares a generated page with the one in docs/, or writes it.
fn compare(name: &str, page: &str) {
    let path = root().join("docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/{name} is out of date: UPDATE_DOCS=1 cargo test --workspace --test spine the_page_of"
    );
}

#[test]
fn the_page_of_settings_is_what_the_program_says() {
    let mut page = String::from(
        "# Settings of methods, defaults and presets\n\nMade from the program's own definitions by a test. The flags are in [Every \
         command](commands.md); each is a field of TOML files too, with underscores in place of dashes.\n\n## Settings of one \
         method\n\nFields of `[methods.NAME]`, or on the command line `--set NAME.FIELD=VALUE`. Every method reads `learning_rate`, \
         `weight_decay`, `sweep_lr` and `sweep_weight_decay` as well. Other fields are refused by name.\n\n| method | adapts | \
         fields |\n| --- | --- | --- |\n",
    );
    for listed in experiments::methods::listed() {
        let fields: Vec<String> = listed.fields.iter().map(|field| format!("`{field}`")).collect();
        let (models, fields) = (listed.models.join(", "), fields.join(", "));
        writeln!(page, "| `{}` | {models} | {fields} |", listed.name).unwrap();
    }
    page.push_str(
        "\n## Defaults and presets of each program\n\nA preset is named by `--config NAME`; flags win over it.\n",
    );
    for experiment in experiments::EXPERIMENTS {
        let text = experiment.text();
        write!(page, "\n### wegeft {}\n", text.name).unwrap();
        let defaults = text.defaults.trim();
        if !defaults.is_empty() {
            write!(page, "\nIts own defaults:\n\n```toml\n{defaults}\n```\n").unwrap();
        }
        for preset in text.presets {
            write!(
                page,
                "\n`--config {}`:\n\n```toml\n{}\n```\n",
                preset.name,
                preset.text.trim()
            )
            .unwrap();
        }
    }
    compare("settings.md", &page);
}

/// All names of flags of `command` and the commands below it.
fn flags(command: &Command, found: &mut BTreeSet<String>) {
    for argument in command.get_arguments() {
        found.extend(argument.get_long().map(str::to_string));
        let aliases = argument.get_all_aliases().unwrap_or_default();
        found.extend(aliases.into_iter().map(str::to_string));
    }
    command.get_subcommands().for_each(|inner| flags(inner, found));
}

#[test]
fn every_flag_that_the_guide_names_is_one() {
    // Flags of Cargo and of other projects' programs.
    const OTHERS: &[&str] = &[
        "release",
        "features",
        "ignored",
        "max-lora-rank",
        "workspace",
        "help",
        "version",
    ];
    let mut known: BTreeSet<String> = OTHERS.iter().map(|name| name.to_string()).collect();
    flags(&experiments::wegeft::whole(), &mut known);
    let mut count = 0;
    for (path, text) in pages() {
        // CONTRIBUTING names flags that a reader is to add.
        if path.ends_with("CONTRIBUTING.md") {
            continue;
        }
        for (at, _) in text.match_indices("`--") {
            let rest = &text[at + 3..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            let name = &rest[..end.unwrap_or(rest.len())];
            assert!(known.contains(name), "{}: there is no --{name}", path.display());
            count += 1;
        }
    }
    assert!(count > 50, "{count} flags found");
}
