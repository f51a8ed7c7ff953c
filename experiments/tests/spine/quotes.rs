//! Code that CONTRIBUTING, README and the guide quote: it is what the files that it comes from say.

use crate::docs::root;

#[test]
fn the_diff_of_a_new_suite_is_the_code_of_gsm8k() {
    let text = std::fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let code = std::fs::read_to_string(root().join("experiments/src/suites/gsm8k.rs")).unwrap();
    let shown = text.split("+++ b/experiments/src/suites/gsm8k.rs\n").nth(1).unwrap();
    let shown = shown.lines().take_while(|line| !line.starts_with("```"));
    let shown: String = shown
        .map(|line| format!("{}\n", line.strip_prefix('+').unwrap()))
        .collect();
    assert!(shown == code, "copy the file into the diff of CONTRIBUTING.md");
}

#[test]
fn every_line_of_a_diff_is_a_line_of_its_file() {
    let text = std::fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let blocks = text.split("```diff\n").skip(1);
    let (mut file, mut path, mut count) = (String::new(), "", 0);
    for line in blocks.flat_map(|block| block.lines().take_while(|line| !line.starts_with("```"))) {
        if let Some(named) = line.strip_prefix("+++ b/") {
            path = named;
            file = std::fs::read_to_string(root().join(path)).unwrap();
        } else if !line.starts_with("---") && !line.starts_with("@@") {
            let shown = line.strip_prefix(['+', ' ']).unwrap_or(line);
            assert!(file.lines().any(|line| line == shown), "{path} has no line '{shown}'");
            count += 1;
        }
    }
    assert!(count > 100, "{count} lines found");
}

#[test]
fn code_that_the_guide_quotes_is_that_of_the_examples() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let quoted = |page: &str, fence: &str| -> String {
        let text = read(page);
        let block = text
            .split(fence)
            .nth(1)
            .unwrap_or_else(|| panic!("{page} has no {fence}"));
        block.split("```").next().unwrap().to_string()
    };
    let method = quoted("docs/extending.md", "```rust,ignore\n");
    assert!(
        read("crates/wegeft/examples/own_method.rs").contains(&method),
        "copy the method into docs/extending.md"
    );
    // The README's lines are compiled as a test of the documentation in tests/src/lib.rs.
    let compiled = read("tests/src/lib.rs");
    for line in quoted("README.md", "```rust\n").lines() {
        let found = compiled.lines().any(|other| other.strip_prefix("/// ") == Some(line));
        assert!(found, "tests/src/lib.rs does not compile the README's line '{line}'");
    }
}

#[test]
fn every_function_that_the_page_on_the_library_names_is_public() {
    let mut source = String::new();
    let mut folders = vec![root().join("crates/wegeft/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => source.push_str(&std::fs::read_to_string(path).unwrap()),
            }
        }
    }
    let page = std::fs::read_to_string(root().join("docs/library.md")).unwrap();
    let names = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let mut count = 0;
    for name in names.filter(|name| name.starts_with("with_")) {
        let public = ["(", "<"].map(|after| source.contains(&format!("pub fn {name}{after}")));
        assert!(public.contains(&true), "docs/library.md: there is no {name}");
        count += 1;
    }
    assert!(count > 8, "{count} functions found");
}
