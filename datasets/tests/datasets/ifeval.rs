//! IFEval's published verdicts on real responses. The committed fixtures hold made responses with verdicts of IFEval's own code.

use datasets::language::ifeval::{Followed, read};
use serde_json::Value;

/// `IFEVAL_VERDICTS` names a JSONL file of prompts in IFEval's form, each with `response`, `strict` and `loose`.
/// `IFEVAL_VERDICTS=FILE cargo test -p datasets --test datasets -- --ignored --nocapture published_verdicts`
#[test]
#[ignore = "needs a file of published verdicts, which is not committed"]
fn published_verdicts_are_ours() {
    let path = std::env::var_os("IFEVAL_VERDICTS").expect("IFEVAL_VERDICTS names the file");
    let text = std::fs::read_to_string(&path).unwrap();
    let prompts = read(path.as_ref()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(prompts.len(), lines.len());
    let mut other = Vec::new();
    for (prompt, line) in prompts.iter().zip(&lines) {
        let of = |name: &str| serde_json::from_value(line[name].clone()).unwrap();
        let published = Followed {
            strict: of("strict"),
            loose: of("loose"),
        };
        if prompt.judge(line["response"].as_str().unwrap()) != published {
            other.push(&prompt.key);
        }
    }
    println!(
        "{} of {} responses judged alike",
        lines.len() - other.len(),
        lines.len()
    );
    assert!(!lines.is_empty() && other.is_empty(), "judged otherwise: {other:?}");
}
