//! Which test sets, and how many of their questions.

use std::path::Path;

use datasets::language::Question;
use datasets::language::records::test_file;

use crate::language::settings::Settings;
use crate::output::tell;

/// Those of `known` that `asked` names, all of them for `all`.
///
/// # Errors
/// A name that is not known.
pub fn chosen<'a>(asked: &[String], known: &[&'a str]) -> Result<Vec<&'a str>, String> {
    if asked.iter().any(|name| name == "all") {
        return Ok(known.to_vec());
    }
    asked
        .iter()
        .map(|name| {
            let found = known.iter().find(|known| known.eq_ignore_ascii_case(name));
            found
                .copied()
                .ok_or_else(|| format!("set '{name}' is unknown; there are: {}", known.join(", ")))
        })
        .collect()
}

/// Those of `sets` (name and folder) that `asked` names and that have test questions under `root`. Of `all`, those
/// that have none are told of and left out.
///
/// # Errors
/// A name that is not known, a named set without questions, no questions at all.
pub fn with_questions<'a>(asked: &[String], sets: &[(&'a str, &str)], root: &Path) -> Result<Vec<&'a str>, String> {
    let names: Vec<&str> = sets.iter().map(|(name, _)| *name).collect();
    let picked = chosen(asked, &names)?;
    let (there, missing): (Vec<&str>, Vec<&str>) = picked.into_iter().partition(|name| {
        let folder = sets
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, folder)| root.join(folder));
        folder.is_some_and(|folder| test_file(&folder).is_file())
    });
    let all = asked.iter().any(|name| name == "all");
    match missing.is_empty() || (all && !there.is_empty()) {
        true if missing.is_empty() => Ok(there),
        true => {
            tell(format_args!(
                "no test.json of {}: not evaluated, not in the average",
                missing.join(", ")
            ));
            Ok(there)
        }
        false => Err(format!(
            "{} holds no test.json of {}; expected it in the folder {}",
            root.display(),
            missing.join(", "),
            sets.iter()
                .find(|(name, _)| *name == missing[0])
                .map_or("", |(_, folder)| folder)
        )),
    }
}

/// The first `test_limit` of `questions`.
pub fn limited(mut questions: Vec<Question>, settings: &Settings) -> Vec<Question> {
    questions.truncate(settings.test_limit.unwrap_or(usize::MAX));
    questions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_without_questions_are_left_out_of_all_and_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let sets = [("A", "a"), ("B", "b")];
        let asked = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
            with_questions(&names, &sets, root.path())
        };
        assert!(asked(&["all"]).unwrap_err().contains("no test.json of A, B"));
        std::fs::create_dir(root.path().join("b")).unwrap();
        std::fs::write(root.path().join("b/test.json"), "[]").unwrap();
        assert_eq!(asked(&["all"]).unwrap(), ["B"]);
        assert_eq!(asked(&["b"]).unwrap(), ["B"]);
        assert!(asked(&["B", "A"]).unwrap_err().contains("in the folder a"));
        assert!(asked(&["C"]).unwrap_err().contains("there are: A, B"));
    }
}
