//! Files of run folders that reports show, and files of answers and judgements that other programs made.

use std::path::Path;

use experiments::language::code::samples;
use experiments::language::instruct::grading::Judgement;
use experiments::language::instruct::outputs::Elsewhere;
use experiments::language::instruct::prompts::JudgePrompts;
use experiments::language::trained_file::TrainedFile;
use experiments::report::layout::Layout;
use experiments::report::{rows, run_folder};
use experiments::run::folder::Claim;
use experiments::run::outcome::Outcome;
use experiments::run::sealed_lines;
use experiments::tools::token_files::read_input_ids;
use experiments::train::loss_scale::LossScale;
use experiments::vision::confusion::read_labels;
use serde_json::json;

use crate::harness::Reader;
use crate::models::repair;
use crate::written;

pub const READERS: &[Reader] = &[
    Reader {
        name: "report-config",
        seeds: || {
            let texts = [
                "seed = [42]\nmethod = [\"lora\"]\nlearning_rate = 5e-3\nr = 16\ndata = \"x\"\n[methods.lora]\nr = 8\n",
                "epochs = 2\ntarget_modules = [\"q\", \"k\"]\ndtype = \"f32\"\nbatch_size = 4\nquiet = true\n",
            ];
            texts.map(|text| text.as_bytes().to_vec()).to_vec()
        },
        repair: None,
        read: |folder, bytes| {
            let summary = serde_json::to_vec(&json!([outcome()])).unwrap();
            let summary = written(folder, "summary.json", &summary);
            written(folder, "config.toml", bytes);
            rows::read(&[summary]).map(drop)
        },
    },
    Reader {
        name: "report-samples",
        seeds: || {
            let sample = |image: &str, hard: bool| json!({ "image": image, "label": "cat", "predicted": "dog", "probability": 0.25, "hard": hard });
            let old =
                json!([{ "picture": "data:image/png;base64,AA", "label": "a", "predicted": "a", "probability": 1.0 }]);
            [
                json!([sample("data:image/png;base64,AA", true), sample("x", false)]),
                old,
            ]
            .map(|file| serde_json::to_vec(&file).unwrap())
            .to_vec()
        },
        repair: None,
        read: |folder, bytes| {
            written(folder, "digits/lora/samples.json", bytes);
            report(folder, &Layout::Tasks)
        },
    },
    Reader {
        name: "report-confusion",
        seeds: || {
            let few = json!({ "classes": ["cat", "dog"], "counts": [[3, 1], [0, 4]] });
            let many: Vec<Vec<usize>> = (0..22)
                .map(|row| (0..22).map(|column| row * column).collect())
                .collect();
            let names: Vec<String> = (0..22).map(|class| format!("class {class}")).collect();
            [few, json!({ "classes": names, "counts": many })]
                .map(|file| serde_json::to_vec(&file).unwrap())
                .to_vec()
        },
        repair: None,
        read: |folder, bytes| {
            written(folder, "digits/lora/confusion.json", bytes);
            report(folder, &Layout::Tasks)
        },
    },
    Reader {
        name: "report-metrics",
        seeds: || {
            let lines = "{\"epoch\":1,\"split\":\"train\",\"step\":2,\"loss\":0.5,\"accuracy\":50.0}\n\
                         {\"epoch\":1,\"split\":\"valid\",\"step\":2,\"loss\":0.25,\"accuracy\":75.0}\n";
            vec![lines.as_bytes().to_vec()]
        },
        repair: None,
        read: |folder, bytes| {
            written(folder, "digits/lora/metrics.jsonl", bytes);
            written(folder, "lora/metrics.jsonl", bytes);
            report(folder, &Layout::Tasks)?;
            report(folder, &Layout::Losses)
        },
    },
    Reader {
        name: "report-texts",
        seeds: || {
            let file = json!([{ "prompt": "good", "output": "bad", "gold": "good", "correct": false }]);
            vec![serde_json::to_vec(&file).unwrap()]
        },
        repair: None,
        read: |folder, bytes| {
            written(folder, "digits/lora/samples.json", bytes);
            let layout = Layout::Texts {
                published: &[],
                published_tasks: &[],
            };
            report(folder, &layout)
        },
    },
    Reader {
        name: "run-data",
        seeds: || vec![br#"{"sha256": "00ff"}"#.to_vec()],
        repair: None,
        read: |folder, bytes| {
            written(folder, "data.json", bytes);
            let claim = Claim {
                out: folder,
                settings: &toml::Table::new(),
                read: &|_| Err("it has no settings".into()),
                paths: &[],
                resumed: false,
            };
            claim.check(true, || Ok("00ff".into()))
        },
    },
    Reader {
        name: "trained",
        seeds: || {
            let file = json!({ "trainable_params": 10, "percent_trainable": 0.5, "seconds": 1.5, "tokens_per_second": null,
                "memory_mb": [1.0, 2.0], "tokens": 7 });
            vec![serde_json::to_vec_pretty(&file).unwrap()]
        },
        repair: None,
        read: |folder, bytes| {
            written(folder, "adapter/adapter_model.safetensors", b"not read");
            written(folder, "trained.json", bytes);
            TrainedFile::read(folder).map(drop)
        },
    },
    Reader {
        name: "loss-scale",
        seeds: || {
            let folder = tempfile::tempdir().unwrap();
            let scale = LossScale::default();
            scale.note(1);
            scale.write(folder.path(), 1).unwrap();
            let entry = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
            vec![std::fs::read(entry.path()).unwrap()]
        },
        repair: None,
        read: |folder, bytes| {
            written(folder, "loss-scale-1.json", bytes);
            LossScale::after(folder, 1).map(|scale| assert!(scale.factor() > 0.0))
        },
    },
    Reader {
        name: "judgements",
        seeds: || {
            let line = json!({ "key": "81-1", "judge": "m", "question": "q", "reply": "[[9]]", "score": 9.0,
                "usage": { "prompt_tokens": 10, "completion_tokens": 5 } });
            vec![format!("{line}\n{line}\n").into_bytes()]
        },
        repair: None,
        read: |folder, bytes| {
            let path = written(folder, "judgements.jsonl", bytes);
            sealed_lines::read::<Judgement>(&path).map(drop)
        },
    },
    Reader {
        name: "judged-elsewhere",
        seeds: || {
            [
                json!({ "question_id": 81, "model": "m", "turn": 1, "score": 9 }),
                json!({ "instruction": "q", "generator_2": "m", "preference": 1.5 }),
            ]
            .map(|line| format!("{line}\n").into_bytes())
            .to_vec()
        },
        repair: None,
        read: |folder, bytes| {
            let judged = Elsewhere::read(&written(folder, "judged.jsonl", bytes))?;
            let _ = judged.grades(&[], "m");
            Ok(())
        },
    },
    Reader {
        name: "code-samples",
        seeds: || {
            let line = |task: &str| json!({ "task_id": task, "completion": "    return 1\n" });
            vec![format!("{}\n{}\n", line("HumanEval/0"), line("11")).into_bytes()]
        },
        repair: None,
        read: |folder, bytes| {
            let path = written(folder, "samples.jsonl", bytes);
            samples::read(&path, |task| ["HumanEval/0", "MBPP/11"].contains(&task)).map(drop)
        },
    },
    Reader {
        name: "input-ids",
        seeds: || {
            let header = r#"{"input_ids":{"dtype":"I64","shape":[1,2],"data_offsets":[0,16]}}"#;
            let ids: Vec<u8> = [1_u64, 2].iter().flat_map(|id| id.to_le_bytes()).collect();
            vec![[&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &ids].concat()]
        },
        repair: Some(repair),
        read: |folder, bytes| read_input_ids(&written(folder, "ids.safetensors", bytes)).map(drop),
    },
    Reader {
        name: "judge-prompts",
        seeds: || {
            let template = "[Question]\\n{question}\\n{answer}\\n{{x}}";
            let line = |name: &str| {
                format!("{{\"name\": \"{name}\", \"system_prompt\": \"s\", \"prompt_template\": \"{template}\"}}\n")
            };
            vec![format!("{}{}", line("single-v1"), line("another")).into_bytes()]
        },
        repair: None,
        read: |folder, bytes| {
            let prompts = JudgePrompts::read(Some(&written(folder, "prompts.jsonl", bytes)))?;
            prompts
                .filled("single-v1", &[("question", "1 + 1?"), ("answer", "2")])
                .map(drop)
        },
    },
    Reader {
        name: "labels",
        seeds: || {
            ["a.png 0\nb c.png 1\n", "\u{feff}a.png cat\r\n\r\nb.png big dog\r\n"]
                .map(|text| text.as_bytes().to_vec())
                .to_vec()
        },
        repair: None,
        read: |folder, bytes| {
            let classes = ["cat", "big dog"].map(String::from);
            let read = read_labels(&written(folder, "labels.txt", bytes), &classes, 2)?;
            assert!(read.1.iter().all(|label| *label < 2));
            Ok(())
        },
    },
    // What a killed process still had to put into its place.
    Reader {
        name: "replacing",
        seeds: || vec![b".tmpAbC123\nfile a\nfile sub/b\nlast c\ngone d/e\n".to_vec()],
        repair: None,
        read: |folder, bytes| {
            let out = folder.join("out");
            if out.exists() {
                std::fs::remove_dir_all(&out).unwrap();
            }
            written(folder, "outside", b"not touched");
            for name in ["a", "sub/b", "c"] {
                written(&out, &format!(".tmpAbC123/{name}"), name.as_bytes());
            }
            written(&out, "d/e", b"old");
            written(&out, ".replacing", bytes);
            files::current(&out.join("a"));
            let finished = files::finish(&out);
            assert_eq!(std::fs::read(folder.join("outside")).unwrap(), b"not touched");
            assert_eq!(std::fs::read_dir(folder).unwrap().count(), 2);
            finished.map_err(|e| e.to_string())
        },
    },
];

fn outcome() -> Outcome {
    Outcome {
        experiment: "vtab".into(),
        task: "digits".into(),
        method: "lora".into(),
        metric: "top1".into(),
        trainable_params: 10,
        percent_trainable: 0.5,
        value: Some(50.5),
        validation: Some(40.0),
        seed: 42,
        ..Outcome::default()
    }
}

fn report(folder: &Path, layout: &Layout) -> Result<(), String> {
    run_folder::write(folder, "vtab", layout, &[outcome()], "a table")
}
