//! The readers of tables and of the benchmarks' own files: texts with labels, tables beside images, questions, code.

use std::io::Write;
use std::path::Path;

use datasets::glue::{self, Part};
use datasets::language::metamath::Comparison;
use datasets::language::{code, ifeval, instruct};
use datasets::parquet_images::Columns;
use datasets::texts::{self, TextFields};
use datasets::{Resize, image_tables};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::Reader;
use crate::readers::{beside, tfds, written};
use crate::seeds;

pub const READERS: &[Reader] = &[
    Reader {
        name: "image-table-csv",
        seeds: || {
            let rows: String = (0..10).map(|i| format!("images/{i}.png,x,{}\n", class(i))).collect();
            seeds::texts(&[
                &format!("\u{feff}file_name,other,label\r\n{rows}"),
                &format!("file_name,other,label\n{rows}"),
            ])
        },
        repair: None,
        read: |folder, bytes| image_table(folder, "metadata.csv", bytes),
    },
    Reader {
        name: "image-table-jsonl",
        seeds: || {
            let line = |i| format!("{{\"file_name\": \"./images/{i}.png\", \"label\": \"{}\"}}\n", class(i));
            let number = |i| {
                format!(
                    "{{\"file_name\": \"images/{i}.png\", \"label\": {}, \"x\": [null]}}\n",
                    i % 2
                )
            };
            seeds::texts(&[
                &(0..10).map(line).collect::<String>(),
                &(0..10).map(number).collect::<String>(),
            ])
        },
        repair: None,
        read: |folder, bytes| image_table(folder, "metadata.jsonl", bytes),
    },
    Reader {
        name: "text-csv",
        seeds: || {
            seeds::texts(&[
                "text,label\n\"a, \"\"b\"\"\",good\n\"two\nlines\",bad\n",
                "\u{feff}label,text\r\n0.5,a\r\nNA,b\r\n1e3,c\r\n",
            ])
        },
        repair: None,
        read: |folder, bytes| table(folder, "a.csv", bytes),
    },
    Reader {
        name: "text-tsv",
        seeds: || seeds::texts(&["text\tlabel\n\"a\tgood\nb c\tbad\n", "label\ttext\r\n1\ta\r\n\tb\r\n"]),
        repair: None,
        read: |folder, bytes| table(folder, "a.tsv", bytes),
    },
    Reader {
        name: "text-json",
        seeds: || {
            seeds::texts(&[
                "[{\"text\": \"a\", \"label\": 1}, {\"text\": \"\\u00e9\", \"label\": \"x\"}, {\"text\": 5, \"label\": true}]",
                "[{\"label\": null, \"text\": \"b\"}, {\"text\": \"c\", \"label\": 0.5}]",
            ])
        },
        repair: None,
        read: |folder, bytes| table(folder, "a.json", bytes),
    },
    Reader {
        name: "text-parquet",
        seeds: || seeds::fixtures("glue/mnli", &["train-00000-of-00001.parquet"]),
        repair: None,
        read: |folder, bytes| {
            let fields = TextFields::parse("premise,hypothesis", Some("label"))?;
            labels(&written(folder, "a.parquet", bytes), &fields)
        },
    },
    Reader {
        name: "glue-tsv",
        seeds: || seeds::texts(&["sentence\tlabel\na \"b\"\t0\nc\t1\n"]),
        repair: None,
        read: |folder, bytes| {
            written(folder, "SST-2/train.tsv", bytes);
            read_glue(folder, "sst2")
        },
    },
    Reader {
        name: "glue-tsv-cola",
        seeds: || seeds::texts(&["gj04\t1\t\tA text.\nbc01\t0\t*\tOther \"text\n"]),
        repair: None,
        read: |folder, bytes| {
            written(folder, "CoLA/train.tsv", bytes);
            read_glue(folder, "cola")
        },
    },
    Reader {
        name: "tfds-labels",
        seeds: || {
            let names: String = (0..47).map(|class| format!("class {class}\n")).collect();
            seeds::texts(&[&names, "banded\r\nblotchy\r\n"])
        },
        repair: None,
        read: |folder, bytes| tfds(folder, "label.labels.txt", bytes),
    },
    Reader {
        name: "ifeval",
        seeds: || {
            seeds::texts(&[
                "{\"key\": 1, \"prompt\": \"Say hen.\", \"instruction_id_list\": [\"punctuation:no_comma\"], \"kwargs\": [{}]}\n\
                 {\"key\": 2, \"prompt\": \"Say cat.\", \"instruction_id_list\": [\"startend:quotation\", \
                 \"length_constraints:number_words\"], \"kwargs\": [{}, {\"relation\": \"less than\", \"num_words\": 500}]}\n",
                "{\"key\": 3, \"prompt\": \"p\", \"instruction_id_list\": [\"keywords:frequency\", \
                 \"keywords:forbidden_words\"], \"kwargs\": [{\"relation\": \"at least\", \"keyword\": \"hen\", \
                 \"frequency\": 3}, {\"forbidden_words\": [\"a\", \"b.*\"]}]}\n",
            ])
        },
        repair: None,
        read: |folder, bytes| {
            let prompts = ifeval::read(&written(folder, "a.jsonl", bytes)).map_err(|e| e.to_string())?;
            for prompt in &prompts {
                prompt.judge("Hen, \"cat\".\n\n* one\n<<two>>");
            }
            Ok(())
        },
    },
    Reader {
        name: "alpaca-eval",
        seeds: || {
            let item = r#"{"instruction": "Say dog.", "output": "dog", "generator": "b", "dataset": "d"}"#;
            seeds::texts(&[
                &format!("[{item}, {item}]"),
                r#"[{"instruction": "x", "output": null}]"#,
            ])
        },
        repair: None,
        read: |folder, bytes| {
            let read = instruct::alpaca_eval(&written(folder, "a.json", bytes));
            read.map(drop).map_err(|e| e.to_string())
        },
    },
    Reader {
        name: "mt-bench",
        seeds: || {
            seeds::texts(&[
                "{\"question_id\": 81, \"category\": \"writing\", \"turns\": [\"Say cat.\", \"Say it twice.\"]}\n\
                 {\"question_id\": 111, \"category\": \"math\", \"turns\": [\"1 + 1?\"]}\n",
            ])
        },
        repair: None,
        read: |folder, bytes| {
            let path = written(folder, "question.jsonl", bytes);
            instruct::mt_bench(&path, None).map(drop).map_err(|e| e.to_string())
        },
    },
    Reader {
        name: "mt-bench-references",
        seeds: || {
            let line = r#"{"question_id": 111, "choices": [{"turns": ["REFERENCE 1", "REFERENCE 2"]}]}"#;
            seeds::texts(&[&format!("{line}\n")])
        },
        repair: None,
        read: |folder, bytes| {
            let question = br#"{"question_id": 111, "category": "math", "turns": ["1 + 1?", "2 + 2?"]}"#;
            beside(folder, "question.jsonl", question);
            let references = written(folder, "gpt-4.jsonl", bytes);
            let read = instruct::mt_bench(&folder.join("question.jsonl"), Some(&references));
            read.map(drop).map_err(|e| e.to_string())
        },
    },
    Reader {
        name: "code",
        seeds: seeds_of_code,
        repair: None,
        read: |folder, bytes| read_code(folder, "a.jsonl", bytes),
    },
    Reader {
        name: "code-gz",
        seeds: || seeds_of_code().iter().map(|text| packed(text)).collect(),
        repair: None,
        read: |folder, bytes| read_code(folder, "a.jsonl.gz", bytes),
    },
    Reader {
        name: "code-feedback",
        seeds: || {
            seeds::texts(&[
                "{\"query\": \"Add.\", \"answer\": \"So:\\n```python\\n1 + 1\\n```\\nmore\"}\n",
                "{\"instruction\": \"Add.\", \"output\": \"```\\n1\\n```\"}\n",
            ])
        },
        repair: None,
        read: |folder, bytes| {
            let read = code::feedback(&[written(folder, "a.jsonl", bytes)]);
            read.map(drop).map_err(|e| e.to_string())
        },
    },
    Reader {
        name: "metamath",
        seeds: || {
            let row = r##"{"query": "1 + 1?", "response": "2\n#### 2\nThe answer is: 2", "type": "GSM_AnsAug"}"##;
            let other = row.replace("GSM", "MATH");
            seeds::texts(&[&format!("[{row}, {other}]"), &format!("[{row}]")])
        },
        repair: None,
        read: |folder, bytes| {
            let path = written(folder, "a.json", bytes);
            let both = [Comparison::LoraGa, Comparison::Peft].map(|protocol| protocol.train(&path));
            let [first, second] = both;
            first.or(second).map(drop).map_err(|e| e.to_string())
        },
    },
    Reader {
        name: "gsm8k",
        seeds: || {
            seeds::texts(&[
                "{\"question\": \"1 + 1?\", \"answer\": \"so\\n#### 2\"}\n{\"question\": \"?\", \"answer\": \"#### -1,234.5\"}\n",
            ])
        },
        repair: None,
        read: |folder, bytes| {
            let read = Comparison::Peft.test(&written(folder, "a.jsonl", bytes));
            for (question, right) in read.map_err(|e| e.to_string())? {
                let text = format!("{} so #### 2", Comparison::Peft.test_prompt(&question));
                Comparison::Peft.judge(&text, &right);
            }
            Ok(())
        },
    },
];

fn class(i: usize) -> &'static str {
    ["dog", "cat"][i % 2]
}

/// A table beside ten images.
fn image_table(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    let root = folder.join("pets");
    for i in 0..10 {
        beside(&root, &format!("images/{i}.png"), b"not read");
    }
    written(&root, name, bytes);
    let task = image_tables::task(&root, 8, Resize::default(), &Columns::default()).map_err(|e| e.to_string())?;
    for part in [&task.train, &task.valid, &task.test] {
        for image in &part.sources {
            assert!(image.path().unwrap().starts_with(&root));
        }
    }
    Ok(())
}

fn table(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    labels(
        &written(folder, name, bytes),
        &TextFields::parse("text", Some("label"))?,
    )
}

/// Texts with labels, as classes and as numbers.
fn labels(path: &Path, fields: &TextFields) -> Result<(), String> {
    let _ = texts::read(path, fields);
    let read = texts::read_labelled(path, fields).map_err(|e| e.to_string())?;
    let scores = texts::with_scores(&read).map(drop);
    let classes = texts::class_names(&read).and_then(|classes| texts::with_classes(&read, &classes));
    scores.or(classes.map(drop)).map_err(|e| e.to_string())
}

fn read_glue(folder: &Path, name: &str) -> Result<(), String> {
    let read = glue::read(folder, glue::task(name)?, Part::Train);
    read.map(drop).map_err(|e| e.to_string())
}

fn read_code(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    let tasks = code::read(&written(folder, name, bytes)).map_err(|e| e.to_string())?;
    for task in &tasks {
        task.program("    return 1\n");
        code::mbpp_number(task);
    }
    Ok(())
}

fn seeds_of_code() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "{\"task_id\": \"HumanEval/0\", \"prompt\": \"def f(x):\\n\", \"entry_point\": \"f\", \
         \"canonical_solution\": \"    return x\\n\", \"test\": \"def check(f):\\n    assert f(1) == 1\\n\"}\n",
        "{\"task_id\": 11, \"text\": \"Write f.\", \"code\": \"def f(): pass\\r\\n\", \"test_list\": [\"assert f() is None\"], \
         \"test_setup_code\": \"\", \"challenge_test_list\": []}\n",
    ])
}

fn packed(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}
