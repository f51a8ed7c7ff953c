//! Files import in one direction only: no file of `wegeft`, of `experiments` or of the language models of `wegeft-backbones` needs itself
//! by way of others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Module path (`lm::rope`) -> its source, without tests and comments.
type Sources = BTreeMap<String, String>;

fn sources(folder: &Path, path: &str, all: &mut Sources) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap().path();
        let name = entry.file_stem().unwrap().to_str().unwrap().to_string();
        let module = match name.as_str() {
            "mod" => path.to_string(),
            _ if path.is_empty() => name,
            _ => format!("{path}::{name}"),
        };
        if entry.is_dir() {
            sources(&entry, &module, all);
        } else if entry.extension().is_some_and(|extension| extension == "rs") && module != "lib" {
            let text = fs::read_to_string(&entry).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let lines = text.lines().map(|line| line.split("//").next().unwrap());
            all.insert(module, lines.collect::<Vec<_>>().join("\n"));
        }
    }
}

/// The paths that `text`, of `module`, mentions after `crate::` or `super::`, from the root of the crate.
fn mentioned(text: &str, module: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (start, root) in text.match_indices("crate::").chain(text.match_indices("super::")) {
        let is_part = text[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        if is_part {
            continue;
        }
        let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        let (mut base, mut rest) = match root {
            "crate::" => (String::new(), &text[start + root.len()..]),
            _ => (parent.to_string(), &text[start + root.len()..]),
        };
        while let Some(further) = rest.strip_prefix("super::") {
            base = base
                .rsplit_once("::")
                .map_or(String::new(), |(parent, _)| parent.to_string());
            rest = further;
        }
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        let (path, after) = rest.split_at(end.unwrap_or(rest.len()));
        let items = match after.strip_prefix('{') {
            Some(list) if path.is_empty() || path.ends_with("::") => list.split('}').next().unwrap(),
            _ => "",
        };
        for item in items.split(',') {
            let whole = format!("{base}::{path}::{}", item.trim());
            let parts = whole.split("::").filter(|part| !part.is_empty());
            paths.push(parts.collect::<Vec<_>>().join("::"));
        }
    }
    // What a module re-exports of the files in its folder.
    for line in text.lines() {
        let reexport = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        if let Some(path) = reexport.strip_prefix("use ") {
            paths.push(format!("{module}::{}", path.split("::").next().unwrap()));
        }
    }
    paths
}

/// The file that holds what `path` names: that of the longest beginning that is a module.
fn owner(path: &str, all: &Sources) -> Option<String> {
    let mut path = path.to_string();
    while !all.contains_key(&path) {
        path.truncate(path.rfind("::")?);
    }
    Some(path)
}

/// A way from `module` back to a file that is on the way, if there is one.
fn circle(
    module: &str,
    imports: &BTreeMap<&str, BTreeSet<String>>,
    way: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<String> {
    if way.iter().any(|before| before == module) {
        return Some(format!("{} -> {module}", way.join(" -> ")));
    }
    if !done.insert(module.to_string()) {
        return None;
    }
    way.push(module.to_string());
    let found = imports[module].iter().find_map(|next| circle(next, imports, way, done));
    way.pop();
    found
}

/// The crate of the programs.
const PROGRAMS: &str = "../experiments";

#[test]
fn no_file_imports_itself() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    for (name, part) in [("wegeft", ""), ("backbones", "lm"), (PROGRAMS, "")] {
        let mut all = Sources::new();
        sources(&crates.join(name).join("src"), "", &mut all);
        all.retain(|module, _| module.starts_with(part) && !module.contains("laws"));
        let mut imports: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (module, text) in &all {
            let owners = mentioned(text, module)
                .into_iter()
                .filter_map(|path| owner(&path, &all));
            // A folder's files share what its mod.rs has.
            let is_parent = |owner: &str| name == PROGRAMS && module.starts_with(&format!("{owner}::"));
            imports.insert(
                module,
                owners.filter(|owner| owner != module && !is_parent(owner)).collect(),
            );
        }
        let edges: usize = imports.values().map(BTreeSet::len).sum();
        assert!(edges > all.len(), "{name}: {edges} imports of {} files", all.len());
        let mut done = BTreeSet::new();
        for module in all.keys() {
            let circle = circle(module, &imports, &mut Vec::new(), &mut done);
            assert_eq!(circle, None, "{name} has a circle of imports");
        }
    }
}
