//! Sweeps, reports and token-cluster maps, run as a user runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use burn::tensor::{Device, Tensor, TensorData};
use experiments::tools::visualize::{jet::jet, maps::drawn, overlay::overlay};
use serde_json::{Value, json};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn done(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn fails(program: &str, args: &[&str], parts: &[&str]) {
    let output: Output = Command::new(program).args(args).output().unwrap();
    let message = text(&output.stderr);
    assert!(!output.status.success() && !message.contains("panicked"), "{message}");
    assert!(
        parts.iter().all(|part| message.contains(part)),
        "{parts:?} not in: {message}"
    );
}

fn json_of(path: PathBuf) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Task `halves`: bright on the left is class 0, on the right class 1.
fn make_task(root: &Path) {
    let folder = root.join("halves");
    std::fs::create_dir_all(folder.join("images")).unwrap();
    for list in ["train800", "val200", "test"] {
        let mut lines = String::new();
        for i in 0..8 {
            let bright = |x: u32| if (x < 16) == (i % 2 == 0) { 220 } else { 30 };
            let image = image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([bright(x), 7 * i as u8, y as u8]));
            image.save(folder.join(format!("images/{list}{i}.png"))).unwrap();
            lines += &format!("images/{list}{i}.png {}\n", i % 2);
        }
        std::fs::write(folder.join(format!("{list}.txt")), lines).unwrap();
    }
}

const VTAB: &str = env!("CARGO_BIN_EXE_vtab");
const REPORT: &str = env!("CARGO_BIN_EXE_report");
const VISUALIZE: &str = env!("CARGO_BIN_EXE_visualize");

#[test]
fn a_sweep_tunes_chooses_and_trains_in_one_process_or_several() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path());
    let run = |out: &str, more: &[&str]| {
        let out = dir.path().join(out);
        let mut args = vec!["--data", dir.path().to_str().unwrap(), "--method", "linear,wegeft"];
        args.extend(["--sweep", "--sweep-lr", "1e-2,1e30", "--sweep-weight-decay", "0"]);
        args.extend([
            "--epochs",
            "4",
            "--tune-epochs",
            "2",
            "--batch-size",
            "4",
            "--final-run",
        ]);
        args.extend(["--out", out.to_str().unwrap()]);
        args.extend(more);
        done(VTAB, &args);
        out
    };
    let alone = run("alone", &[]);
    for method in ["linear", "wegeft"] {
        let tuning = json_of(alone.join("halves").join(method).join("tuning.json"));
        assert_eq!(tuning["chosen"]["learning_rate"], 1e-2, "{tuning}");
        assert_eq!(tuning["grid"].as_array().unwrap().len(), 2);
        let point = alone.join("halves").join(method).join("tune/lr-1e-2-wd-0e0");
        let lines = std::fs::read_to_string(point.join("metrics.jsonl")).unwrap();
        assert!(
            lines.contains("\"epoch\":2") && !lines.contains("\"epoch\":3"),
            "{lines}"
        );
        assert!(!point.join("checkpoints").exists());
    }
    // A point that diverges is a result, and none to choose.
    assert_eq!(json_of(alone.join("halves/wegeft/tuning.json"))["grid"][1]["epoch"], 0);
    let summary = json_of(alone.join("summary.json"));
    assert_eq!(
        (summary.as_array().unwrap().len(), &summary[1]["learning_rate"]),
        (2, &json!(1e-2))
    );
    // On all images: nothing is left to validate on.
    assert_eq!(summary[1]["validation"], Value::Null);

    // Cut: a point and what follows from it are missing.
    let adapter = |out: &Path| std::fs::read(out.join("halves/wegeft/adapter/adapter_model.safetensors")).unwrap();
    let before = (adapter(&alone), json_of(alone.join("summary.json"))[1]["value"].clone());
    std::fs::remove_dir_all(alone.join("halves/wegeft/tune/lr-1e-2-wd-0e0")).unwrap();
    std::fs::remove_file(alone.join("halves/wegeft/outcome.json")).unwrap();
    std::fs::remove_dir_all(alone.join("halves/wegeft/checkpoints")).unwrap();
    run("alone", &[]);
    assert_eq!(
        (adapter(&alone), json_of(alone.join("summary.json"))[1]["value"].clone()),
        before
    );

    let jobs = run("jobs", &["--jobs", "2"]);
    assert_eq!(adapter(&jobs), before.0);
    assert!(jobs.join("report.html").is_file());
    let out = dir.path().join("bad");
    fails(
        VTAB,
        &[
            "--task",
            "digits",
            "--method",
            "wegeft,lora",
            "--r",
            "4000",
            "--jobs",
            "2",
            "--out",
            out.to_str().unwrap(),
        ],
        &["method wegeft", "4000"],
    );
    // What a process says that --jobs started is what the program says.
    std::fs::remove_file(dir.path().join("halves/images/train8003.png")).unwrap();
    let (data, out) = (dir.path().to_str().unwrap(), dir.path().join("worse"));
    let args = [
        "--data",
        data,
        "--jobs",
        "2",
        "--method",
        "linear,wegeft",
        "--out",
        out.to_str().unwrap(),
    ];
    fails(VTAB, &args, &["vtab: ", "train8003.png"]);
}

#[test]
fn augmentation_is_drawn_from_the_seed() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path());
    let run = |out: &str, more: &[&str]| {
        let out = dir.path().join(out);
        let data = dir.path().to_str().unwrap();
        let mut args = vec![
            "--data",
            data,
            "--method",
            "linear",
            "--epochs",
            "2",
            "--batch-size",
            "4",
        ];
        args.extend(["--out", out.to_str().unwrap()]);
        args.extend(more);
        done(VTAB, &args);
        std::fs::read(out.join("halves/linear/adapter/adapter_model.safetensors")).unwrap()
    };
    let all = ["--flip", "0.5", "--random-resized-crop", "0.5", "--randaugment", "2"];
    let all = [
        &all[..],
        &["--mixup", "0.2", "--cutmix", "1", "--label-smoothing", "0.1"],
    ]
    .concat();
    let first = run("a", &all);
    assert_eq!(first, run("b", &all));
    assert_ne!(first, run("c", &[]));
    let out = dir.path().join("d");
    fails(VTAB, &["--flip", "2", "--out", out.to_str().unwrap()], &["'flip' is 2"]);
}

#[test]
fn runs_are_gathered_beside_the_published_rows() {
    let dir = tempfile::tempdir().unwrap();
    for (seed, value) in [(1, 60.0), (2, 64.0)] {
        let row = |experiment: &str, task: &str, method: &str, value: f64| {
            json!({ "experiment": experiment, "task": task, "method": method, "trainable_params": 24576,
                "percent_trainable": 0.0286, "metric": "top1", "value": value, "seconds": 1.0,
                "peak_rss_mb": 2100.0, "seed": seed })
        };
        let folder = dir.path().join(format!("runs/seed{seed}"));
        std::fs::create_dir_all(&folder).unwrap();
        let rows = json!([
            row("vtab", "svhn", "wegeft", value),
            row("arithmetic", "gsm8k", "wegeft", 30.0)
        ]);
        std::fs::write(folder.join("summary.json"), rows.to_string()).unwrap();
    }
    let (runs, out) = (dir.path().join("runs"), dir.path().join("out"));
    let args = [runs.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let said = done(REPORT, &args);
    assert!(
        said.contains("62.00 ± 2.83") && said.contains("74.09") && said.contains("## arithmetic"),
        "{said}"
    );
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert!(said.contains(&read("report.md")));
    assert!(read("report.tex").contains("62.00 $\\pm$ 2.83"));
    assert!(read("report.csv").contains("vtab,runs,wegeft,24576,0.0286,2100,svhn,top1,62,"));
    let html = read("report.html");
    assert!(html.contains("62.00 ± 2.83") && html.matches("<svg").count() == 4 && !html.contains("http-equiv"));
    std::fs::write(runs.join("seed1/summary.json"), "[{}]").unwrap();
    fails(REPORT, &args, &["seed1", "experiment"]);
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    fails(REPORT, &[empty.to_str().unwrap()], &["holds no summary.json"]);
}

#[test]
fn maps_are_drawn_for_files_and_for_correct_test_images() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path());
    let (data, runs, out) = (dir.path(), dir.path().join("runs"), dir.path().join("maps"));
    let (data, runs_arg, out_arg) = (data.to_str().unwrap(), runs.to_str().unwrap(), out.to_str().unwrap());
    let args = [
        "--data",
        data,
        "--method",
        "linear,wegeft",
        "--epochs",
        "12",
        "--batch-size",
        "4",
        "--out",
        runs_arg,
    ];
    done(VTAB, &args);
    let adapter = runs.join("halves/wegeft/adapter");
    let adapter = adapter.to_str().unwrap();
    let image = dir.path().join("halves/images/test0.png");
    done(
        VISUALIZE,
        &[image.to_str().unwrap(), "--adapter", adapter, "--out", out_arg],
    );
    let folder = out.join("00-test0");
    // Four blocks of the shipped backbone, sixteen clusters, two variants; the input, two sheets and the mark.
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 4 * 16 * 2 + 4);
    let sheet = image::open(folder.join("sheet-after.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (17 * 66 - 2, 4 * 66 - 2));
    let sheets = [
        "--sheets-only",
        "--task",
        "halves",
        "--data",
        data,
        "--class",
        "1",
        "--count",
        "2",
    ];
    let said = done(
        VISUALIZE,
        &[&["--adapter", adapter, "--out", out_arg][..], &sheets].concat(),
    );
    assert!(said.contains("maps of 2 images"), "{said}");
    assert!(out.join("halves-00001/sheet-before.png").is_file());
    let linear = runs.join("halves/linear/adapter");
    let args = [image.to_str().unwrap(), "--adapter", linear.to_str().unwrap()];
    fails(VISUALIZE, &args, &["no WeGeFT on 'attn.proj'"]);
}

#[test]
fn maps_and_overlays_are_the_reference_s() {
    let expected = json_of(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/visualize/expected.json"));
    let numbers = |value: &Value| -> Vec<f32> {
        let flat = value.as_array().unwrap().iter();
        flat.map(|number| number.as_f64().unwrap() as f32).collect()
    };
    let size = expected["size"].as_u64().unwrap() as usize;
    let rows: Vec<f32> = expected["similarities"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(numbers)
        .collect();
    let similarities = Tensor::<2>::from_data(TensorData::new(rows, [2, 16]), &Device::flex());
    let bytes = numbers(&expected["picture"]).iter().map(|value| *value as u8).collect();
    let image = image::RgbImage::from_raw(size as u32, size as u32, bytes).unwrap();
    let maps = drawn(similarities, size);
    assert_eq!(maps.len(), 2);
    for (index, map) in maps.iter().enumerate() {
        let theirs = numbers(&expected["maps"][index]);
        assert!(
            map.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-5),
            "{map:?} {theirs:?}"
        );
        let theirs = numbers(&expected["overlays"][index]);
        let ours = overlay(map, &image).into_raw();
        // OpenCV rounds its colours one apart here and there.
        assert!(
            ours.iter().zip(&theirs).all(|(a, b)| (f32::from(*a) - b).abs() < 2.0),
            "{ours:?} {theirs:?}"
        );
    }
    for (value, colour) in expected["jet"].as_object().unwrap() {
        let ours = jet(value.parse().unwrap());
        let theirs = numbers(colour);
        assert!(
            (0..3).all(|c| (f32::from(ours[c]) - theirs[c]).abs() <= 1.0),
            "{value}: {ours:?} {theirs:?}"
        );
    }
}
