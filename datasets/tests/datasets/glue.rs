//! GLUE in its two forms, its metrics against scikit-learn and SciPy, and labelled texts from any table.

use std::fs;
use std::path::Path;

use datasets::glue::metrics::{accuracy, f1, matthews, pearson, spearman};
use datasets::glue::{GlueItem, Label, Metric, Part, TASKS, read, task, write_predictions};
use datasets::texts::{self, TextFields, class_names, with_classes, with_scores};
use serde_json::Value;

use crate::{fixture, says};

fn close(a: f64, b: &Value) {
    let b = b.as_f64().unwrap();
    assert!((a - b).abs() < 1e-9, "{a}, expected {b}");
}

#[test]
fn metrics_are_those_of_scikit_learn_and_scipy() {
    let text = fs::read_to_string(fixture("glue/metrics.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    for case in json["classes"].as_array().unwrap() {
        let list = |name: &str| -> Vec<usize> { serde_json::from_value(case[name].clone()).unwrap() };
        let (predicted, gold) = (list("predicted"), list("gold"));
        close(accuracy(&predicted, &gold).unwrap(), &case["accuracy"]);
        close(f1(&predicted, &gold, 1), &case["f1"]);
        close(matthews(&predicted, &gold), &case["matthews"]);
    }
    for case in json["scores"].as_array().unwrap() {
        let list = |name: &str| -> Vec<f64> { serde_json::from_value(case[name].clone()).unwrap() };
        let (predicted, gold) = (list("predicted"), list("gold"));
        close(pearson(&predicted, &gold).unwrap(), &case["pearson"]);
        close(spearman(&predicted, &gold).unwrap(), &case["spearman"]);
    }
}

#[test]
fn metrics_that_are_not_defined_are_none() {
    assert_eq!(accuracy(&[], &[]), None);
    assert_eq!(
        (pearson(&[1.0], &[1.0]), spearman(&[1.0, 1.0], &[1.0, 2.0])),
        (None, None)
    );
    assert_eq!(pearson(&[f64::NAN, 1.0], &[1.0, 2.0]), None);
    assert_eq!(spearman(&[f64::INFINITY, 1.0], &[1.0, 2.0]), None);
    assert_eq!((matthews(&[1, 1], &[0, 1]), f1(&[0], &[0], 1)), (0.0, 0.0));
    let stsb = task("STS-B").unwrap();
    let same = [Label::Score(1.0), Label::Score(1.0)];
    assert_eq!(
        stsb.evaluate(&same, &same),
        [(Metric::Pearson, None), (Metric::Spearman, None)]
    );
    let cola = task("cola").unwrap();
    let both = [Label::Class(0), Label::Class(1)];
    assert_eq!(cola.evaluate(&both, &both), [(Metric::Matthews, Some(100.0))]);
}

/// A line of each part of a task as GLUE's own files have it, with header; `None` where the header is missing.
fn official(name: &str) -> (Option<&'static str>, &'static str, Option<&'static str>, &'static str) {
    match name {
        "CoLA" => (
            None,
            "gj04\t0\t*\tShe \"said it.",
            Some("index\tsentence"),
            "0\tBill left.",
        ),
        "SST-2" => (
            Some("sentence\tlabel"),
            "a fine \"film \t1",
            Some("index\tsentence"),
            "0\tdull",
        ),
        "MRPC" => (
            Some("\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"),
            "1\t70\t71\tHe ran.\tHe \"ran.",
            Some("index\t#1 ID\t#2 ID\t#1 String\t#2 String"),
            "0\t1\t2\ta\tb",
        ),
        "QQP" => (
            Some("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"),
            "1\t2\t3\tWhy?\tHow?\t0\n2\t3\t4\tbroken",
            Some("id\tquestion1\tquestion2"),
            "0\ta\tb",
        ),
        "STS-B" => (
            Some("index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore"),
            "0\tmain\tMSR\t2012\t1\tnone\tnone\tA plane.\tA bird.\t4.250",
            Some("index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"),
            "0\tmain\tMSR\t2012\t1\tnone\tnone\ta\tb",
        ),
        "MNLI" => (
            Some(
                "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
            ),
            "0\t1\t1n\tg\t(\t(\t(\t(\tIt is.\tIt was.\tentailment\tneutral\n1\t1\t1n\tg\t(\t(\t(\t(\tIt is.\tIt was.\tentailment\t-",
            Some(
                "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\tsentence1\tsentence2",
            ),
            "0\t1\t1n\tg\t(\t(\t(\t(\ta\tb",
        ),
        "QNLI" => (
            Some("index\tquestion\tsentence\tlabel"),
            "0\tWho?\tHe did.\tnot_entailment",
            Some("index\tquestion\tsentence"),
            "0\ta\tb",
        ),
        "RTE" => (
            Some("index\tsentence1\tsentence2\tlabel"),
            "0\tIt is.\tIt was.\tentailment",
            Some("index\tsentence1\tsentence2"),
            "0\ta\tb",
        ),
        _ => (
            Some("index\tsentence1\tsentence2\tlabel"),
            "0\tIt is.\tIt was.\t1",
            Some("index\tsentence1\tsentence2"),
            "0\ta\tb",
        ),
    }
}

#[test]
fn the_nine_tasks_in_glue_s_own_form() {
    let dir = tempfile::tempdir().unwrap();
    let expected = [
        ("CoLA", "She \"said it.", None, Label::Class(0)),
        ("SST-2", "a fine \"film ", None, Label::Class(1)),
        ("MRPC", "He ran.", Some("He \"ran."), Label::Class(1)),
        ("QQP", "Why?", Some("How?"), Label::Class(0)),
        ("STS-B", "A plane.", Some("A bird."), Label::Score(4.25)),
        ("MNLI", "It is.", Some("It was."), Label::Class(1)),
        ("QNLI", "Who?", Some("He did."), Label::Class(1)),
        ("RTE", "It is.", Some("It was."), Label::Class(0)),
        ("WNLI", "It is.", Some("It was."), Label::Class(1)),
    ];
    for (glue, (name, text, pair, label)) in TASKS.iter().zip(expected) {
        assert_eq!(glue.name, name);
        let (header, line, test_header, test_line) = official(name);
        let folder = dir.path().join(name);
        fs::create_dir(&folder).unwrap();
        let write = |file: String, header: Option<&str>, line: &str| {
            let header = header.map(|header| format!("{header}\n")).unwrap_or_default();
            fs::write(folder.join(file), format!("{header}{line}\n")).unwrap();
        };
        write("train.tsv".into(), header, line);
        for (suffix, _) in glue.variants {
            write(format!("dev{suffix}.tsv"), header, line);
            write(format!("test{suffix}.tsv"), test_header, test_line);
        }
        for part in [Part::Train, Part::Validation(0)] {
            let split = read(dir.path(), glue, part).unwrap();
            let item = GlueItem {
                text: text.into(),
                pair: pair.map(String::from),
                label: Some(label),
            };
            assert_eq!(split.items, [item]);
            assert_eq!(split.left_out, usize::from(matches!(name, "QQP" | "MNLI")), "{name}");
        }
        let test = read(dir.path(), glue, Part::Test(glue.variants.len() - 1)).unwrap();
        assert_eq!(
            (test.items.len(), test.items[0].label, test.left_out),
            (1, None, 0),
            "{name}"
        );
        assert_eq!(test.items[0].pair.is_some(), pair.is_some());
        // The task's own folder as root.
        assert_eq!(read(&folder, glue, Part::Train).unwrap().items.len(), 1);
    }
}

#[test]
fn hugging_face_s_form() {
    let root = fixture("glue");
    let mnli = task("mnli").unwrap();
    let labels = |part| -> Vec<Option<Label>> {
        let items = read(&root, mnli, part).unwrap().items;
        items.iter().map(|item| item.label).collect()
    };
    assert_eq!(labels(Part::Train), [0, 2, 1].map(|class| Some(Label::Class(class))));
    assert_eq!(labels(Part::Validation(1)), [Some(Label::Class(2))]);
    assert_eq!(labels(Part::Test(1)), [None, None]);
    let first = &read(&root, mnli, Part::Validation(0)).unwrap().items[0];
    assert_eq!(first.text, "validation_matched premise 0");
    assert_eq!(first.pair.as_deref(), Some("it's \"0\""));
    // In two parts, in a folder `data`.
    let stsb = read(&root, task("stsb").unwrap(), Part::Validation(0)).unwrap();
    let scores: Vec<_> = stsb.items.iter().map(|item| item.label).collect();
    assert_eq!(scores, [Some(Label::Score(2.5)), Some(Label::Score(3.5))]);
    assert_eq!(stsb.paths.len(), 2);
}

#[test]
fn predictions_in_the_form_of_a_submission() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("out");
    let items = |count: usize| {
        let item = GlueItem {
            text: String::new(),
            pair: None,
            label: None,
        };
        vec![item; count]
    };
    let written = |name: &str, variant: usize, labels: &[Label]| {
        let path = write_predictions(&folder, task(name).unwrap(), variant, &items(labels.len()), labels).unwrap();
        let file = path.file_name().unwrap().to_str().unwrap().to_string();
        (file, fs::read_to_string(path).unwrap())
    };
    let both = [Label::Class(1), Label::Class(0)];
    let expected = |file: &str, text: &str| (file.to_string(), format!("index\tprediction\n{text}"));
    assert_eq!(written("CoLA", 0, &both), expected("CoLA.tsv", "0\t1\n1\t0\n"));
    assert_eq!(
        written("RTE", 0, &both),
        expected("RTE.tsv", "0\tnot_entailment\n1\tentailment\n")
    );
    assert_eq!(
        written("MNLI", 1, &[Label::Class(2)]),
        expected("MNLI-mm.tsv", "0\tcontradiction\n")
    );
    assert_eq!(written("MNLI", 0, &[]), expected("MNLI-m.tsv", ""));
    let scores = [Label::Score(5.5), Label::Score(2.25)];
    assert_eq!(
        written("STS-B", 0, &scores),
        expected("STS-B.tsv", "0\t5.000\n1\t2.250\n")
    );
    assert_eq!(
        fs::read_dir(&folder).unwrap().count(),
        5,
        "no half-written file is left"
    );
}

#[test]
fn what_is_wrong_with_a_task_is_named_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let rte = task("rte").unwrap();
    says(task("squad"), &["'squad'", "CoLA, SST-2"]);
    says(
        read(dir.path(), rte, Part::Train),
        &["RTE/train.tsv", "rte/train-*.parquet", "fetch"],
    );
    let write = |text: &str| fs::write(dir.path().join("train.tsv"), text).unwrap();
    write("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n1\ta\tb\tperhaps\n");
    says(
        read(dir.path(), rte, Part::Train),
        &["train.tsv:3", "'perhaps'", "not_entailment"],
    );
    for row in ["0\ta\tb\t-1", "0\ta\tb\t", "0\ta\tb"] {
        write(&format!("index\tsentence1\tsentence2\tlabel\n{row}\n"));
        says(read(dir.path(), rte, Part::Train), &["train.tsv:2", "no label"]);
    }
    write("index\tsentence1\tlabel\n0\ta\tentailment\n");
    says(
        read(dir.path(), rte, Part::Train),
        &["train.tsv:2", "no field 'sentence2'", "index, sentence1"],
    );
    write("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\tmore\n");
    says(
        read(dir.path(), rte, Part::Train),
        &["train.tsv:2", "5 fields", "header names 4"],
    );
    write("index\tsentence1\tsentence2\tlabel\n");
    says(read(dir.path(), rte, Part::Train), &["train.tsv holds no row"]);
    fs::write(
        dir.path().join("train.tsv"),
        b"index\tsentence1\tsentence2\tlabel\n0\t\xff\tb\t0\n",
    )
    .unwrap();
    says(read(dir.path(), rte, Part::Train), &["train.tsv:2", "UTF-8"]);
    let stsb = task("sts-b").unwrap();
    write("sentence1\tsentence2\tscore\na\tb\tvery\n");
    says(
        read(dir.path(), stsb, Part::Train),
        &["train.tsv:2", "score 'very'", "0 to 5"],
    );
}

fn file(dir: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn labelled_texts_of_any_table() {
    let dir = tempfile::tempdir().unwrap();
    let fields = TextFields::parse("a, b", Some("y")).unwrap();
    let csv = "y,a,b,extra\n10,\"one, \"\"two\"\"\",b1,x\n9,\"line\nbreak\",b2,x\n";
    let json = r#"[{"a": "one, \"two\"", "b": "b1", "y": 10}, {"a": "line\nbreak", "b": "b2", "y": 9}]"#;
    let lines = "{\"a\": \"one, \\\"two\\\"\", \"b\": \"b1\", \"y\": \"10\"}\n{\"a\": \"line\\nbreak\", \"b\": \"b2\", \"y\": 9}\n";
    let mut read_texts = Vec::new();
    for (name, text) in [("t.csv", csv), ("t.json", json), ("t.jsonl", lines)] {
        read_texts.push(texts::read(&file(dir.path(), name, text), &fields).unwrap());
    }
    for texts in &read_texts {
        assert_eq!(texts.items, read_texts[0].items);
        // By number, not by letter.
        let names = class_names(texts).unwrap();
        assert_eq!(names, ["9", "10"]);
        let classes = with_classes(texts, &names).unwrap();
        assert_eq!(
            (classes[0].text.as_str(), classes[0].pair.as_deref()),
            ("one, \"two\"", Some("b1"))
        );
        assert_eq!(
            classes.iter().map(|item| item.label).collect::<Vec<_>>(),
            [Some(1), Some(0)]
        );
        assert_eq!(with_scores(texts).unwrap()[1].label, Some(9.0));
    }
    // TSV as it is: a quote is a quote.
    let tsv = file(dir.path(), "t.tsv", "a\ty\n\"half\tno\n");
    let one = TextFields::parse("a", Some("y")).unwrap();
    assert_eq!(texts::read(&tsv, &one).unwrap().items[0].text, "\"half");
    let unlabelled = texts::read(&tsv, &TextFields::parse("a", None).unwrap()).unwrap();
    assert_eq!(unlabelled.items[0].label, None);
}

#[test]
fn what_is_wrong_with_labelled_texts_is_named_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let fields = TextFields::parse("text", Some("label")).unwrap();
    says(TextFields::parse("a,b,c", None), &["'a,b,c'", "a,b"]);
    says(TextFields::parse("a,a", None), &["'a,a'", "twice"]);
    says(TextFields::parse("a,y", Some("y")), &["'a,y'", "twice"]);
    let read_texts = |name: &str, text: &str| texts::read(&file(dir.path(), name, text), &fields);
    says(read_texts("t.txt", "x"), &["t.txt", ".csv, .tsv"]);
    says(
        read_texts("t.csv", "text,label\na,1\nb\n"),
        &["t.csv:3", "no field 'label'"],
    );
    says(
        read_texts("t.csv", "words,label\na,1\n"),
        &["t.csv:2", "no field 'text'", "words, label"],
    );
    says(
        read_texts("t.json", r#"[{"text": ["a"], "label": 1}]"#),
        &["t.json, item 1", "a list"],
    );
    says(
        read_texts(
            "t.jsonl",
            "{\"text\": \"a\", \"label\": 1}\n\n{\"text\": null, \"label\": 1}\n",
        ),
        &["t.jsonl:3", "null"],
    );
    let texts = read_texts("t.csv", "text,label\na,good\nb,bad\nc,\n").unwrap();
    says(class_names(&texts), &["t.csv:4", "no label"]);
    says(with_scores(&texts), &["t.csv:2", "'good' is no number"]);
    says(
        with_classes(&texts, &["good".into(), "fair".into()]),
        &["t.csv:3", "'bad' is none of good, fair"],
    );
    let texts = read_texts("t.csv", "text,label\na,1\nb,1\n").unwrap();
    says(class_names(&texts), &["all labels are '1'"]);
}

#[test]
fn rows_without_text_or_label_are_left_out_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let fields = TextFields::parse("text", Some("label")).unwrap();
    let read = |name: &str, text: &str| texts::read_labelled(&file(dir.path(), name, text), &fields);
    let csv = read("t.csv", "text,label,x\na,good,\nb,NaN,\n,bad,\nNone,bad,\nc,bad,\nd\n").unwrap();
    assert_eq!(
        csv.items.iter().map(|item| item.text.as_str()).collect::<String>(),
        "ac"
    );
    let told = csv.describe_left_out().unwrap();
    assert!(told.starts_with("4 rows are left out, the first: "), "{told}");
    assert!(told.ends_with("t.csv:3: field 'label' holds no label"), "{told}");
    assert_eq!(class_names(&csv).unwrap(), ["bad", "good"]);
    // Elsewhere a word is a word.
    let lines = read(
        "t.jsonl",
        "{\"text\": \"None\", \"label\": \"NaN\"}\n{\"text\": null, \"label\": 1}\n{\"text\": \"b\", \"label\": NaN}\n",
    )
    .unwrap();
    assert_eq!((lines.items[0].text.as_str(), lines.left_out), ("None", 2));
    let whole = read("t.csv", "text,label\na,1\nb,2\n").unwrap();
    assert_eq!((whole.items.len(), whole.describe_left_out()), (2, None));
    says(
        read("t.csv", "text,label\na,\nb,null\n"),
        &["t.csv:2: field 'label' holds no label"],
    );
    says(
        read("t.csv", "words,label\na,1\n"),
        &["t.csv:2", "no field 'text'", "words, label"],
    );
    // Texts to answer are all kept.
    let answered = texts::read(&file(dir.path(), "t.csv", "text,label\nNaN,NaN\n,1\n"), &fields).unwrap();
    assert_eq!((answered.items.len(), &answered.items[0].label), (2, &None));
    assert_eq!(
        (answered.items[0].text.as_str(), answered.items[1].text.as_str()),
        ("NaN", "")
    );
}
