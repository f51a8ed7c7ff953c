//! Run folders: locked, bound to their settings, whole after any cut.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{fails, json, make_task, succeeds, sums, text, wegeft};
#[cfg(unix)]
use crate::{interrupt, start};

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "{} never came",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A run that is long enough to be interrupted.
#[cfg(unix)]
fn long_run<'a>(data: &'a Path, out: &'a str) -> Vec<&'a str> {
    let data = data.to_str().unwrap();
    let line = [
        "vtab",
        "--data",
        data,
        "--method",
        "lora",
        "--epochs",
        "60",
        "--batch-size",
        "4",
        "--out",
        out,
    ];
    line.to_vec()
}

#[cfg(unix)]
#[test]
fn a_folder_is_one_run_s_and_data_may_move_but_not_change() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    make_task(&old, "halves", 8);
    let out = dir.path().join("run");
    let place = out.to_str().unwrap();
    let args = long_run(&old, place);
    let first = start(&args);
    wait_for(&out.join("halves/lora/checkpoints/scheduler-2.bpk"));
    fails(&args, &["in use by process", "another --out"]);
    fails(&[&args[..], &["--seed", "2"]].concat(), &["in use"]);
    interrupt(first, "-INT");

    std::fs::rename(&old, &new).unwrap();
    let resumed = ["vtab", "--resume", "--out", place, "--data", new.to_str().unwrap()];
    let list = new.join("halves/train800.txt");
    let whole = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, whole.replace("train8000.png 0", "train8000.png 1")).unwrap();
    fails(&resumed, &["other data"]);
    std::fs::write(&list, whole).unwrap();
    fails(
        &[&resumed[..], &["--epochs", "5"]].concat(),
        &["other settings (epochs: 60 there, 5 here)"],
    );
    let said = succeeds(&resumed);
    assert!(said.contains("the data has moved"), "{said}");
    assert!(out.join("summary.json").is_file());
    let config = std::fs::read_to_string(out.join("config.toml")).unwrap();
    assert!(config.contains("/new\""), "{config}");
}

/// A folder of class folders, of `count` images each.
#[cfg(unix)]
fn make_classes(root: &Path, count: usize) {
    for (class, shade) in [("dark", 30), ("light", 220)] {
        std::fs::create_dir_all(root.join(class)).unwrap();
        for index in 0..count {
            let image = image::RgbImage::from_pixel(8, 8, image::Rgb([shade, index as u8, 90]));
            image.save(root.join(class).join(format!("{index}.png"))).unwrap();
        }
    }
}

#[cfg(unix)]
#[test]
fn a_folder_of_classes_that_was_renamed_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    make_classes(&old, 20);
    let out = dir.path().join("run");
    let place = out.to_str().unwrap();
    let first = start(&long_run(&old, place));
    wait_for(&out.join("old/lora/checkpoints/scheduler-2.bpk"));
    interrupt(first, "-INT");
    std::fs::rename(&old, &new).unwrap();
    let resumed = ["vtab", "--resume", "--out", place, "--data", new.to_str().unwrap()];
    let dry = succeeds(&[&resumed[..], &["--dry-run"]].concat());
    assert!(dry.contains("the data has moved"), "{dry}");
    // A dry run refuses what the run refuses.
    let other = [&resumed[..], &["--dry-run", "--epochs", "5"]].concat();
    fails(&other, &["other settings (epochs: 60 there, 5 here)"]);
    let said = succeeds(&resumed);
    assert!(said.contains("the data has moved"), "{said}");
    assert!(out.join("old/lora/adapter").is_dir() && !out.join("new").exists());
}

/// Sums whose answers are noise: the validation loss rises after a few rounds, so that the best is not the last.
fn noise(path: &Path) {
    let line = |i: u64| {
        let answer = i
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407)
            >> 33;
        format!(
            "{{\"instruction\": \"Say {i}.\", \"output\": \"It is {}.\"}}\n",
            answer % 1000
        )
    };
    std::fs::write(path, (0..24).map(line).collect::<String>()).unwrap();
}

#[cfg(unix)]
#[test]
fn the_best_adapter_survives_any_cut() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("noise.jsonl");
    noise(&data);
    let run = |out: &Path| -> Vec<String> {
        let fixed = "finetune --method lora --epochs 5 --batch-size 4 --eval-steps 2 --validation 0.34 --keep best \
                     --learning-rate 0.01 --warmup-ratio 0 --train-file";
        let fixed = fixed.split_whitespace().map(String::from);
        let files = [data.to_str().unwrap(), "--out", out.to_str().unwrap()].map(String::from);
        fixed.chain(files).collect()
    };
    let words = |args: &[String]| args.to_vec();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let args = words(&run(&whole));
    succeeds(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let evaluations = |out: &Path| -> Vec<(u64, f64)> {
        let text = std::fs::read_to_string(out.join("lora/metrics.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .filter(|line| line["split"] == "valid")
            .map(|line| (line["epoch"].as_u64().unwrap(), line["loss"].as_f64().unwrap()))
            .collect()
    };
    let rounds = evaluations(&whole);
    let best = rounds
        .iter()
        .copied()
        .reduce(|a, b| if b.1 < a.1 { b } else { a })
        .unwrap();
    assert!(rounds.len() >= 8, "{rounds:?}");
    let adapter = |out: &Path| std::fs::read(out.join("lora/adapter/adapter_model.safetensors")).unwrap();
    let value = |out: &Path| json(&out.join("summary.json"))[0]["value"].as_f64().unwrap();
    assert_eq!(value(&whole), best.1);
    // Cut after each of some rounds: before the best one, just before it, and after it.
    let args = words(&run(&cut));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    for round in [best.0.saturating_sub(1).max(1), best.0 + 1] {
        if cut.exists() {
            std::fs::remove_dir_all(&cut).unwrap();
        }
        let child = start(&args);
        wait_for(&cut.join(format!("lora/checkpoints/scheduler-{round}.bpk")));
        interrupt(child, "-INT");
        succeeds(&args);
        assert_eq!(adapter(&whole), adapter(&cut), "cut after round {round}");
        assert_eq!((value(&cut), evaluations(&cut)), (best.1, rounds.clone()));
    }
}

/// What AdaLoRA's ranks are cut by is an average over all steps: a cut run must not begin it anew.
#[cfg(unix)]
#[test]
fn ranks_fall_in_a_cut_run_as_in_an_uncut_one() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("noise.jsonl");
    noise(&data);
    let fixed = "finetune --method adalora --epochs 8 --batch-size 4 --eval-steps 2 --learning-rate 0.02 --lora-r 2 --set \
                 adalora.tinit=2 --set adalora.tfinal=8 --set adalora.delta_t=2 --train-file";
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let args = |out: &'static str| -> Vec<String> {
        let files = [data.clone(), dir.path().join(out)].map(|path| path.to_str().unwrap().to_string());
        let [data, out] = files;
        fixed
            .split_whitespace()
            .map(String::from)
            .chain([data, "--out".into(), out])
            .collect()
    };
    let run = |args: &[String]| {
        succeeds(&args.iter().map(String::as_str).collect::<Vec<_>>());
    };
    run(&args("whole"));
    let cut_args = args("cut");
    let child = start(&cut_args.iter().map(String::as_str).collect::<Vec<_>>());
    wait_for(&cut.join("adalora/checkpoints/scheduler-3.bpk"));
    interrupt(child, "-HUP");
    run(&cut_args);
    let adapter = |out: &Path| std::fs::read(out.join("adalora/adapter/adapter_model.safetensors")).unwrap();
    assert!(adapter(&whole) == adapter(&cut), "the cut run's adapter is another one");
    let metrics = |out: &Path| std::fs::read(out.join("adalora/metrics.jsonl")).unwrap();
    assert!(metrics(&whole) == metrics(&cut));
    let config = json(&whole.join("adalora/adapter/adapter_config.json"));
    assert_eq!(
        (config["init_r"].as_u64(), config["target_r"].as_u64()),
        (Some(3), Some(2))
    );
    assert_eq!(config["total_step"], 48);
}

#[test]
fn early_stopping_stops_and_stays_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("noise.jsonl");
    noise(&data);
    let out = dir.path().join("run");
    let args = "finetune --method lora --epochs 40 --batch-size 4 --validation 0.34 --keep best --early-stopping-patience 2 \
                --learning-rate 0.02 --warmup-ratio 0 --train-file";
    let args: Vec<&str> = args
        .split_whitespace()
        .chain([data.to_str().unwrap(), "--out", out.to_str().unwrap()])
        .collect();
    assert!(succeeds(&args).contains("stopped early"));
    let metrics = std::fs::read(out.join("lora/metrics.jsonl")).unwrap();
    for file in ["summary.json", "lora/trained.json"] {
        std::fs::remove_file(out.join(file)).unwrap();
    }
    succeeds(&args);
    assert_eq!(std::fs::read(out.join("lora/metrics.jsonl")).unwrap(), metrics);
}

#[test]
fn one_method_that_diverges_ends_no_other_and_the_rest_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    for jobs in ["1", "2"] {
        let out = place(&format!("run{jobs}"));
        let args = "arithmetic --task one-step --train-limit 16 --test-limit 3 --batch-size 4 --method wegeft,lora --set \
                    wegeft.learning_rate=1e30 --jobs";
        let args: Vec<&str> = args.split_whitespace().chain([jobs, "--out", &out]).collect();
        let output = wegeft(&args);
        let (said, message) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(
            message.contains("method wegeft") && message.contains("not a number"),
            "{message}"
        );
        assert!(said.contains("| lora") && said.contains("report: "), "{said}");
        assert!(Path::new(&out).join("report.html").is_file());
        let summary = json(&Path::new(&out).join("summary.json"));
        assert_eq!(
            (summary.as_array().unwrap().len(), &summary[0]["method"]),
            (1, &"lora".into())
        );
        for field in ["learning_rate", "weight_decay", "seed", "metric"] {
            assert!(!summary[0][field].is_null(), "{field}");
        }
        assert!(summary[0].get("model").is_some());
    }
}

#[test]
fn a_grid_that_diverges_ends_its_own_method_alone() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 4);
    let data = dir.path().to_str().unwrap();
    for jobs in ["1", "2"] {
        let out = dir.path().join(format!("run{jobs}"));
        let place = out.to_str().unwrap();
        let args = "vtab --task halves --method linear,lora --sweep --sweep-weight-decay 0 --set linear.sweep_lr=0.01 --set \
                    lora.sweep_lr=1e30,1e30 --epochs 2 --batch-size 4 --jobs";
        let args: Vec<&str> = args
            .split_whitespace()
            .chain([jobs, "--data", data, "--out", place])
            .collect();
        for _ in 0..2 {
            let output = wegeft(&args);
            let (said, message) = (text(&output.stdout), text(&output.stderr));
            assert_eq!(output.status.code(), Some(1), "{message}");
            assert!(
                message.contains("method lora: every run of the grid diverged"),
                "{message}"
            );
            assert!(said.contains("linear") && said.contains("report: "), "{said}");
        }
        let summary = json(&out.join("summary.json"));
        assert_eq!(summary.as_array().unwrap().len(), 1);
        assert_eq!(
            (&summary[0]["method"], &summary[0]["learning_rate"]),
            (&"linear".into(), &0.01.into())
        );
    }
}

#[test]
fn a_finished_run_notices_a_file_that_was_changed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("sums.jsonl");
    sums(&data, 8);
    let (file, out) = (data.to_str().unwrap(), dir.path().join("run"));
    let args = [
        "finetune",
        "--epochs",
        "1",
        "--batch-size",
        "4",
        "--train-file",
        file,
        "--out",
        out.to_str().unwrap(),
    ];
    succeeds(&args);
    // What a full disk has left of a last line is cut, in a training that is finished too.
    let metrics = out.join("wegeft/metrics.jsonl");
    let whole = std::fs::read(&metrics).unwrap();
    std::fs::write(&metrics, [&whole[..], b"{\"torn"].concat()).unwrap();
    std::fs::remove_file(out.join("summary.json")).unwrap();
    succeeds(&args);
    assert!(std::fs::read(&metrics).unwrap() == whole);
    succeeds(&args);
    sums(&data, 9);
    fails(&args, &["other data", "have changed"]);
    // Whoever removes the data of a finished run still gets its table.
    std::fs::remove_file(&data).unwrap();
    let resumed = ["finetune", "--resume", "--out", out.to_str().unwrap()];
    succeeds(&resumed);
    std::fs::remove_file(out.join("summary.json")).unwrap();
    std::fs::remove_file(out.join("wegeft/trained.json")).unwrap();
    fails(&resumed, &["sums.jsonl", "is gone", "--train-file"]);
}

#[test]
fn whole_answers_survive_a_torn_character_and_a_flipped_bit() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args = "arithmetic --task one-step --method none --test-limit 6 --eval-batch-size 2 --out";
    let args: Vec<&str> = args.split_whitespace().chain([out.to_str().unwrap()]).collect();
    succeeds(&args);
    let path = out.join("none/one-step.jsonl");
    let whole = std::fs::read(&path).unwrap();
    let mut lines: Vec<Vec<u8>> = whole
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    lines[1][5] = 0xff;
    lines.truncate(4);
    lines.push(b"{\"index\":4,\"output\":\"\xc3".to_vec());
    std::fs::write(&path, lines.concat()).unwrap();
    let output = wegeft(&args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("one-step.jsonl:2 is damaged"),
        "{}",
        text(&output.stderr)
    );
    let asked: Vec<Value> = std::fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let indices: Vec<u64> = asked.iter().map(|answer| answer["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_task_of_one_class_is_refused_where_classes_are_mixed() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "one", 4);
    for list in ["train800", "val200", "test"] {
        let path = dir.path().join(format!("one/{list}.txt"));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(" 1\n", " 0\n")).unwrap();
    }
    let out = dir.path().join("run");
    let args = [
        "vtab",
        "--data",
        dir.path().to_str().unwrap(),
        "--method",
        "lora",
        "--epochs",
        "1",
    ];
    let args = [&args[..], &["--label-smoothing", "0.1", "--out", out.to_str().unwrap()]].concat();
    fails(&args, &["one/train800.txt", "there is one class"]);
}

#[test]
fn runs_of_different_settings_are_rows_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 8);
    let runs = dir.path().join("runs");
    for (name, more) in [("a", ["--lr", "0.02"]), ("b", ["--lr", "1e-6"])] {
        let out = runs.join(name);
        let args = [
            "vtab",
            "--data",
            dir.path().to_str().unwrap(),
            "--task",
            "halves",
            "--method",
            "wegeft",
        ];
        succeeds(&[&args[..], &["--epochs", "3", "--out", out.to_str().unwrap()], &more].concat());
    }
    let out = dir.path().join("report");
    let said = succeeds(&["report", runs.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(
        said.contains("wegeft (learning_rate 0.02") && said.contains("wegeft (learning_rate 0.000001"),
        "{said}"
    );
}

#[test]
fn the_report_of_a_program_has_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("sums.jsonl");
    sums(&data, 8);
    let out = dir.path().join("run");
    let args = "finetune --method lora --epochs 1 --batch-size 4 --train-file";
    let args: Vec<&str> = args
        .split_whitespace()
        .chain([data.to_str().unwrap(), "--out", out.to_str().unwrap()])
        .collect();
    succeeds(&args);
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(
        html.contains("<title>finetune</title>") && html.contains("<svg"),
        "{html}"
    );
    // The table is shown on a second start too.
    let again = succeeds(&args);
    assert!(
        again.contains("is finished") && again.contains("validation loss"),
        "{again}"
    );
}

#[test]
fn a_suite_of_one_file_gets_everything() {
    let dir = tempfile::tempdir().unwrap();
    for (list, count) in [("train", 8), ("test", 3)] {
        let line = |i: usize| {
            format!(
                "{{\"question\": \"What is {i} and 1?\", \"answer\": \"It is {0}.\\n#### {0}\"}}\n",
                i + 1
            )
        };
        let lines: String = (1..=count).map(line).collect();
        std::fs::write(dir.path().join(format!("{list}.jsonl")), lines).unwrap();
    }
    fails(&["gsm8k"], &["give --data"]);
    let out = dir.path().join("run");
    let args = "gsm8k --method none,lora --epochs 1 --batch-size 4 --max-new-tokens 4 --seed 1,2 --jobs 2 --data";
    let files = [dir.path().to_str().unwrap(), "--out", out.to_str().unwrap()];
    let args: Vec<&str> = args.split_whitespace().chain(files).collect();
    let said = succeeds(&args);
    assert!(
        said.contains("| lora") && said.contains("GSM8K") && said.contains(" ± "),
        "{said}"
    );
    let answer = std::fs::read_to_string(out.join("lora/seed-2/GSM8K.jsonl")).unwrap();
    let answer: Value = serde_json::from_str(answer.lines().next().unwrap()).unwrap();
    assert_eq!(answer["gold"], "2");
    assert!(succeeds(&args).contains("is finished"));
    let bad = "{\"question\": \"a\", \"answer\": \"#### 5\"}\n{\"question\": \"b\", \"answer\": \"#### five\"}\n";
    std::fs::write(dir.path().join("test.jsonl"), bad).unwrap();
    let other = dir.path().join("other");
    let args = [
        "gsm8k",
        "--method",
        "none",
        "--data",
        files[0],
        "--out",
        other.to_str().unwrap(),
    ];
    fails(&args, &["test.jsonl:2", "'answer'", "####"]);
}
