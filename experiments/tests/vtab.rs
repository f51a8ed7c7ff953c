//! The `vtab` program, run as a user runs it, on a few images; and every kind of bad input.

mod halves;

use std::path::Path;
use std::process::{Command, Output};

use halves::make_task;

fn vtab(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vtab")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn fails(args: &[&str], parts: &[&str]) {
    let output = vtab(args);
    let message = text(&output.stderr);
    assert!(!output.status.success(), "{args:?} succeeded");
    assert!(!message.contains("panicked"), "{message}");
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

#[test]
fn a_folder_of_images_trains_saves_and_says_when_it_is_done() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 8);
    let (data, out) = (dir.path().to_str().unwrap(), dir.path().join("run"));
    let args = [
        "--data",
        data,
        "--task",
        "halves",
        "--epochs",
        "2",
        "--out",
        out.to_str().unwrap(),
    ];
    let first = vtab(&args);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let summary: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("summary.json")).unwrap()).unwrap();
    let rows = summary.as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for field in [
        "experiment",
        "task",
        "method",
        "trainable_params",
        "percent_trainable",
        "metric",
        "value",
        "seconds",
        "peak_mb",
        "seed",
    ] {
        assert!(rows[2].get(field).is_some(), "{field}");
    }
    assert!(out.join("config.toml").is_file());
    assert!(out.join("halves/wegeft/adapter/adapter_config.json").is_file());
    assert!(out.join("halves/wegeft/adapter/adapter_model.safetensors").is_file());
    let second = vtab(&args);
    assert!(
        second.status.success() && text(&second.stdout).contains("is finished"),
        "{}",
        text(&second.stdout)
    );
    // Another seed is another run: the finished one is not overwritten.
    fails(&[&args[..], &["--seed", "1"]].concat(), &["other settings"]);
}

#[test]
fn the_same_seed_gives_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 8);
    let run = |name: &str, method: &str, more: &[&str]| {
        let out = dir.path().join(name).join(method);
        let (data, folder) = (dir.path().to_str().unwrap(), out.to_str().unwrap());
        let args = ["--data", data, "--task", "halves", "--method", method, "--out", folder];
        let done = vtab(&[args.as_slice(), &["--epochs", "2"], more].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
        let adapter = out
            .join("halves")
            .join(method)
            .join("adapter/adapter_model.safetensors");
        std::fs::read(adapter).unwrap()
    };
    let drops = ["--drop-path", "0.2"];
    for method in ["wegeft", "pissa"] {
        assert_eq!(run("once", method, &drops), run("again", method, &drops), "{method}");
    }
    // Blocks that are computed again drop the same branches both times.
    let again = ["--drop-path", "0.2", "--gradient-checkpointing"];
    let first = run("blocks", "wegeft", &again);
    assert_eq!(first, run("blocks again", "wegeft", &again));
    assert_ne!(first, run("none dropped", "wegeft", &["--gradient-checkpointing"]));
}

/// All elements of the adapter of a run, name by name, and the losses of its metrics.jsonl.
fn results(run: &Path) -> (Vec<(String, Vec<f32>)>, Vec<f64>) {
    let tensors = wegeft::storage::read_tensors(&run.join("adapter/adapter_model.safetensors")).unwrap();
    let lines = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let loss = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64();
    (
        tensors
            .into_iter()
            .map(|(name, stored)| (name, stored.values))
            .collect(),
        lines.lines().filter_map(loss).collect(),
    )
}

/// The greatest difference of two runs' adapters and of their losses.
fn difference(one: &Path, other: &Path) -> (f32, f64) {
    let (one, other) = (results(one), results(other));
    assert_eq!(one.1.len(), other.1.len());
    let names = |tensors: &[(String, Vec<f32>)]| tensors.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&one.0), names(&other.0));
    let elements = one.0.iter().zip(&other.0).flat_map(|(a, b)| a.1.iter().zip(&b.1));
    (
        elements.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max),
        one.1
            .iter()
            .zip(&other.1)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max),
    )
}

#[test]
fn several_devices_train_as_one_does_and_a_run_goes_on_with_fewer() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 20);
    let out = |name: &str| dir.path().join(name);
    let run = |name: &str, devices: &[&str]| {
        let (data, folder) = (dir.path().to_str().unwrap(), out(name));
        let args = ["--data", data, "--task", "halves", "--out", folder.to_str().unwrap()];
        // A last batch that is smaller, images that are mixed with others of their batch, and gradients that are clipped.
        let more = [
            "--epochs",
            "3",
            "--batch-size",
            "7",
            "--mixup",
            "0.4",
            "--max-grad-norm",
            "0.5",
        ];
        let done = vtab(&[&args[..], &more, &["--log-steps", "1"], devices].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
        folder.join("halves/wegeft")
    };
    let one = run("one", &[]);
    let two = run("two", &["--devices", "flex,flex"]);
    let again = run("again", &["--devices", "flex,flex"]);
    assert_eq!(
        std::fs::read(two.join("metrics.jsonl")).unwrap(),
        std::fs::read(again.join("metrics.jsonl")).unwrap()
    );
    // AdamW divides gradients by their own size, so that rounding shows in the few elements whose gradient is almost 0.
    let (weights, losses) = difference(&one, &two);
    assert!(weights < 1e-4 && losses < 1e-6, "{weights} {losses}");
    // Another backend is another device, with a thread of its own. Its products are rounded in another way, so that these
    // losses are as far apart as those of either backend alone.
    let (_, losses) = difference(&one, &run("backends", &["--devices", "flex,ndarray"]));
    assert!(losses < 2e-3, "{losses}");

    // What a kill in the last epoch leaves; it goes on with one device.
    for file in ["summary.json", "report.html", "halves/wegeft/outcome.json"] {
        std::fs::remove_file(out("two").join(file)).unwrap();
    }
    std::fs::remove_dir_all(two.join("adapter")).unwrap();
    for record in ["model", "optim", "scheduler"] {
        std::fs::remove_file(two.join(format!("checkpoints/{record}-3.bpk"))).unwrap();
    }
    let folder = out("two");
    let done = vtab(&[
        "--resume",
        "--device",
        "flex",
        "--log-steps",
        "1",
        "--out",
        folder.to_str().unwrap(),
    ]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let (weights, losses) = difference(&one, &two);
    assert!(weights < 1e-4 && losses < 1e-6, "{weights} {losses}");
    let config = std::fs::read_to_string(folder.join("config.toml")).unwrap();
    assert!(config.contains("device = \"flex\""), "{config}");
    fails(&["--device", "flex", "--devices", "flex,flex"], &["--devices"]);
    fails(&["--devices", "flex,tpu"], &["--device tpu"]);
}

#[test]
fn bad_data_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap().to_string();
    let out = dir.path().join("run");
    let out = out.to_str().unwrap();
    fails(&["--data", "/nonexistent/root", "--out", out], &["/nonexistent/root"]);
    let dir2 = tempfile::tempdir().unwrap();
    fails(
        &["--data", dir2.path().to_str().unwrap(), "--out", &format!("{out}0")],
        &["no task folder"],
    );
    make_task(dir.path(), "halves", 4);
    let list = dir.path().join("halves/train800.txt");
    let whole = std::fs::read_to_string(&list).unwrap();
    let with = |text: &str, parts: &[&str], n: usize| {
        std::fs::write(&list, text).unwrap();
        fails(
            &["--data", &root, "--task", "halves", "--out", &format!("{out}{n}")],
            parts,
        );
    };
    with("", &["train800.txt is empty"], 1);
    with("images/train8000.png\n", &["line 1", "path label"], 2);
    with("images/train8000.png -1\n", &["line 1", "-1"], 3);
    with("images/missing.png 1\n", &["missing.png"], 4);
    std::fs::write(&list, &whole).unwrap();
    std::fs::write(dir.path().join("halves/test.txt"), "images/test0.png 7\n").unwrap();
    fails(
        &["--data", &root, "--task", "halves", "--out", &format!("{out}5")],
        &["label 7 is out of range", "2 classes"],
    );
    std::fs::write(dir.path().join("halves/test.txt"), "images/test0.png 0\n").unwrap();
    let image = dir.path().join("halves/images/test0.png");
    let bytes = std::fs::read(&image).unwrap();
    std::fs::write(&image, &bytes[..bytes.len() / 2]).unwrap();
    fails(
        &["--data", &root, "--task", "halves", "--out", &format!("{out}6")],
        &["test0.png"],
    );
    std::fs::write(&image, "not an image").unwrap();
    fails(
        &["--data", &root, "--task", "halves", "--out", &format!("{out}7")],
        &["test0.png"],
    );
}

#[test]
fn bad_settings_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let out = out.to_str().unwrap();
    fails(&["--out", out, "--task", "digit"], &["'digit' is unknown", "digits"]);
    fails(&["--out", out, "--method", "magic"], &["'magic' is unknown"]);
    fails(
        &["--out", out, "--device", "cuda:1"],
        &["--features cuda --bin vtab -- --device cuda:1"],
    );
    fails(&["--out", out, "--epochs", "0"], &["'epochs' is 0"]);
    fails(&["--out", out, "--lr", "-1"], &["learning_rate"]);
    let preset = dir.path().join("preset.toml");
    std::fs::write(&preset, "epocs = 3\n").unwrap();
    fails(
        &["--out", out, "--config", preset.to_str().unwrap()],
        &["preset.toml", "epocs"],
    );
    fails(
        &[
            "--out",
            &format!("{out}1"),
            "--method",
            "wegeft",
            "--task",
            "digits",
            "--r",
            "4000",
        ],
        &["r = 4000", "choose 1 to"],
    );
    fails(
        &[
            "--out",
            &format!("{out}2"),
            "--method",
            "wegeft",
            "--task",
            "digits",
            "--target-modules",
            "atn.proj",
        ],
        &["'atn.proj' matches nothing", "attn.proj"],
    );
    fails(&["--out", "/proc/nowhere", "--task", "digits"], &["/proc/nowhere"]);
    fails(
        &[
            "--out",
            &format!("{out}3"),
            "--task",
            "digits",
            "--method",
            "wegeft",
            "--epochs",
            "10",
            "--lr",
            "1e30",
        ],
        &["digits", "lower learning_rate"],
    );
    // The first epoch warms up at a rate that does no harm; its checkpoint is the last good one.
    let mut kept: Vec<String> = std::fs::read_dir(format!("{out}3/digits/wegeft/checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort();
    assert_eq!(kept, ["model-1.bpk", "optim-1.bpk", "scheduler-1.bpk"]);
}

#[test]
fn bad_weights_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/backbone");
    let out = dir.path().join("run");
    let backbone = dir.path().join("backbone");
    std::fs::create_dir(&backbone).unwrap();
    let args = |n: usize| {
        [
            "--out".to_string(),
            format!("{}{n}", out.display()),
            "--backbone".into(),
            backbone.display().to_string(),
        ]
    };
    let check = |n: usize, parts: &[&str]| fails(&args(n).iter().map(String::as_str).collect::<Vec<_>>(), parts);
    check(0, &["config.json"]);
    std::fs::copy(shipped.join("config.json"), backbone.join("config.json")).unwrap();
    let whole = std::fs::read(shipped.join("model.safetensors")).unwrap();
    std::fs::write(backbone.join("model.safetensors"), &whole[..whole.len() / 2]).unwrap();
    check(1, &["model.safetensors", "not a complete"]);
    let mut tensors = wegeft::storage::read_tensors(&shipped.join("model.safetensors")).unwrap();
    let norm = tensors.remove("norm.weight").unwrap();
    tensors.insert("extra".into(), norm);
    wegeft::storage::write_tensors(&backbone.join("model.safetensors"), &tensors).unwrap();
    check(2, &["missing 'norm.weight'", "unexpected 'extra'"]);
}

#[test]
fn what_would_stop_a_later_run_is_found_before_the_first_and_blocks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for task in ["a", "b"] {
        make_task(dir.path(), task, 4);
    }
    let (data, out) = (dir.path().to_str().unwrap(), dir.path().join("run"));
    let run = |more: &[&'static str]| {
        let mut args = vec!["--data", data, "--task", "a,b", "--epochs", "1", "--out"];
        args.push(out.to_str().unwrap());
        args.extend(more);
        args.into_iter().map(String::from).collect::<Vec<_>>()
    };
    let refused = |more: &[&'static str], parts: &[&str]| {
        let args = run(more);
        fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), parts);
        assert!(
            !out.join("a").exists() && !out.join("b").exists(),
            "{more:?}: something was trained"
        );
    };
    refused(
        &["--method", "linear,wegeft", "--r", "4000"],
        &["method wegeft", "r = 4000"],
    );
    refused(
        &["--method", "linear,wegeft", "--target-modules", "atn.proj"],
        &["'atn.proj' matches nothing"],
    );
    refused(&["--alpha", "nan"], &["'alpha' is NaN"]);
    refused(&["--task", "all,nope"], &["'nope' is unknown"]);
    let image = dir.path().join("b/images/test3.png");
    std::fs::rename(&image, dir.path().join("away")).unwrap();
    refused(&["--method", "linear"], &["test3.png"]);
    std::fs::rename(dir.path().join("away"), &image).unwrap();

    // None of these starts has claimed the folder.
    let args = run(&["--method", "linear,linear"]);
    let done = vtab(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(done.status.success(), "{}", text(&done.stderr));
    let summary = std::fs::read_to_string(out.join("summary.json")).unwrap();
    assert_eq!(summary.matches("\"linear\"").count(), 2, "one for each task: {summary}");
    let report = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(report.contains("mean over tasks"));
    let other = ["--resume", "--out", out.to_str().unwrap(), "--epochs", "5"];
    fails(&other, &["other settings", "leave the other flags out"]);
}

#[test]
fn what_was_finished_before_a_failure_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    for task in ["a", "b"] {
        make_task(dir.path(), task, 4);
    }
    std::fs::write(dir.path().join("b/images/test3.png"), "not an image").unwrap();
    let out = dir.path().join("run");
    let args = [
        "--data",
        dir.path().to_str().unwrap(),
        "--method",
        "linear",
        "--epochs",
        "1",
        "--final-run",
        "--out",
    ];
    let failed = vtab(&[&args[..], &[out.to_str().unwrap()]].concat());
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("test3.png"), "{}", text(&failed.stderr));
    assert!(text(&failed.stdout).contains("| a "), "{}", text(&failed.stdout));
    let report = std::fs::read_to_string(out.join("report.html")).unwrap();
    // The validation images were trained on: no curve is called validation.
    assert!(report.contains("trained on the validation images") && !report.contains("validation top-1, %"));
}

#[cfg(unix)]
#[test]
fn output_that_nobody_reads_ends_no_training() {
    use std::process::Stdio;
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 4);
    let run = |out: &str, stdout: Stdio| {
        let out = dir.path().join(out);
        let mut command = Command::new(env!("CARGO_BIN_EXE_vtab"));
        command
            .args(["--method", "linear", "--epochs", "2", "--data"])
            .arg(dir.path());
        command.arg("--out").arg(&out).stdout(stdout).stderr(Stdio::piped());
        let ended = command.spawn().unwrap().wait_with_output().unwrap();
        assert!(out.join("summary.json").is_file() && out.join("report.html").is_file());
        (ended.status.code(), text(&ended.stderr))
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(run("closed", writer.into()).0, Some(0));
    if let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") {
        let (code, message) = run("full", full.into());
        assert_eq!(code, Some(1), "{message}");
        assert!(message.contains("cannot write to standard output"), "{message}");
    }
}

#[test]
fn a_finished_pretraining_is_not_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let run = |steps: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pretrain"));
        command.args(["--batch-size", "1", "--classes", "2", "--d-model", "32", "--depth", "1"]);
        command.args(["--steps", steps, "--out"]).arg(&out).output().unwrap()
    };
    let trained = text(&run("2").stdout);
    for part in [
        "pretraining, 2 steps, 1 checkpoint",
        "checkpoint 1 train",
        "2 steps in",
        "written to",
    ] {
        assert!(trained.contains(part), "{part}: {trained}");
    }
    let model = out.join("model.safetensors");
    let written = std::fs::metadata(&model).unwrap().modified().unwrap();
    let again = run("2");
    assert!(
        again.status.success() && text(&again.stdout).contains("has the model of 2 steps"),
        "{again:?}"
    );
    assert_eq!(std::fs::metadata(&model).unwrap().modified().unwrap(), written);
    let other = run("3");
    assert!(
        !other.status.success() && text(&other.stderr).contains("other flags"),
        "{other:?}"
    );
    // Without its model it is trained again.
    std::fs::remove_file(&model).unwrap();
    assert!(text(&run("2").stdout).contains("written to") && model.is_file());
}

#[test]
fn pretraining_refuses_what_it_cannot_do_before_it_starts_and_writes_no_ruins() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("backbone");
    std::fs::write(dir.path().join("file"), "").unwrap();
    let file = dir.path().join("file");
    for (more, part) in [
        (["--classes", "1"], "from 2 to"),
        (["--batch-size", "0"], "--batch-size"),
        (["--steps", "18446744073709551615"], "--steps"),
        (["--d-model", "30"], "--d-model 30"),
        (["--lr", "nan"], "--learning-rate"),
        (["--lr", "1e30"], "; lower --learning-rate"),
        (["--out", file.to_str().unwrap()], "choose another --out"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pretrain"));
        let small = ["--steps=3", "--batch-size=2", "--classes=2", "--depth=1", "--d-model=8"];
        let name = more[0];
        command.args(small.iter().filter(|flag| !flag.starts_with(&format!("{name}="))));
        if name != "--out" {
            command.arg("--out").arg(&out);
        }
        let failed = command.args(more).output().unwrap();
        let message = text(&failed.stderr);
        // 2: clap refuses it.
        assert!(matches!(failed.status.code(), Some(1 | 2)), "{more:?}: {message}");
        assert!(message.contains(part), "{more:?}: {message}");
        assert!(message.matches("lower --learning-rate").count() <= 1, "{message}");
    }
    assert!(!out.join("model.safetensors").exists() && !out.join("config.json").exists());
}

/// What a browser says of a page 500 pixels wide (the least that it does), if there is one: how wide the page is, its images, those
/// of them that do not show, plots, and files that it asked for. None of it may come from the network.
fn in_a_browser(page: &Path) -> Option<[usize; 5]> {
    const MEASURE: &str = "<script>addEventListener('load', () => { document.title = ['measured', \
        document.documentElement.scrollWidth, document.images.length, \
        [...document.images].filter(image => !image.naturalWidth).length, document.querySelectorAll('svg').length, \
        performance.getEntriesByType('resource').filter(file => !file.name.startsWith('data:')).length].join(' ') })</script>";
    let browser = |name: &str, page: &str| {
        let mut command = Command::new("timeout");
        command
            .args([
                "60",
                name,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--hide-scrollbars",
                "--window-size=500,900",
                "--virtual-time-budget=5000",
                "--dump-dom",
            ])
            .args(["--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND", page]);
        command.output()
    };
    let works = |name: &&str| {
        let output = browser(name, "data:text/html,<title>works</title>");
        output.is_ok_and(|output| text(&output.stdout).contains("works"))
    };
    let Some(name) = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(works)
    else {
        eprintln!("no browser that works here: the page is not rendered");
        return None;
    };
    let measured = page.with_file_name("measured.html");
    let html = std::fs::read_to_string(page).unwrap();
    std::fs::write(&measured, html + MEASURE).unwrap();
    let output = browser(name, &format!("file://{}", measured.display())).unwrap();
    let (dom, log) = (text(&output.stdout), text(&output.stderr));
    assert!(!log.contains("CONSOLE"), "{log}");
    let title = dom
        .split("<title>measured ")
        .nth(1)
        .unwrap_or_else(|| panic!("{dom}\n{log}"));
    let numbers = title.split("</title>").next().unwrap().split(' ');
    let numbers: Vec<usize> = numbers.map(|number| number.parse().unwrap()).collect();
    Some(numbers.try_into().unwrap())
}

#[test]
fn the_page_of_a_run_shows_results_costs_mistakes_and_leads_to_adapters() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "two halves", 6);
    let out = dir.path().join("run");
    let done = vtab(&[
        "--data",
        dir.path().to_str().unwrap(),
        "--method",
        "linear,wegeft",
        "--epochs",
        "2",
        "--seed",
        "1,2",
        "--out",
        out.to_str().unwrap(),
    ]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let page = out.join("report.html");
    // The template escapes slashes too.
    let html = std::fs::read_to_string(&page).unwrap().replace("&#x2f;", "/");
    for part in [
        "What each method costs",
        "standard deviations over seeds",
        "The hardest",
        "by label (rows) and prediction (columns)",
        "<a href=\"two%20halves/wegeft/seed-2/adapter/\">two halves/wegeft/seed-2/adapter</a>",
    ] {
        assert!(html.contains(part), "{part}");
    }
    let confusion = std::fs::read_to_string(out.join("two halves/wegeft/seed-1/confusion.json")).unwrap();
    let confusion: serde_json::Value = serde_json::from_str(&confusion).unwrap();
    let counts = confusion["counts"].as_array().unwrap().iter();
    let all: u64 = counts
        .flat_map(|row| row.as_array().unwrap())
        .map(|count| count.as_u64().unwrap())
        .sum();
    assert_eq!(all, 6);
    if let Some([width, images, missing, plots, files]) = in_a_browser(&page) {
        assert!(width <= 500, "{width} pixels wide on a narrow screen");
        // Six even ones and the six hardest of each training; the scatter and the curves of the task.
        assert_eq!((images, missing, plots, files), (4 * 12, 0, 2, 0));
    }
}
