//! The `predict` program: against stored outputs of timm and transformers, and on an adapter that `vtab` trained.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use wegeft::storage::{read_tensors, write_tensors};

fn predict(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_predict")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/backbones/tests/fixtures")
        .join(name)
}

fn fails(args: &[&str], parts: &[&str]) {
    let output = predict(args);
    let message = text(&output.stderr);
    assert!(
        !output.status.success() && !message.contains("panicked"),
        "{args:?}: {message}"
    );
    assert!(
        parts.iter().all(|part| message.contains(part)),
        "{parts:?} not in: {message}"
    );
}

#[test]
fn logits_and_features_are_the_reference_s() {
    let dir = tempfile::tempdir().unwrap();
    // A folder, and once the weights file in it.
    for (family, file) in [
        ("timm", ""),
        ("timm_avg", "model.safetensors"),
        ("vit", ""),
        ("dinov2", ""),
    ] {
        let expected = fixture(family).join("expected.safetensors");
        let output = dir.path().join(format!("{family}.safetensors"));
        let backbone = fixture(family).join(file);
        let done = predict(&[
            expected.to_str().unwrap(),
            "--backbone",
            backbone.to_str().unwrap(),
            "--output",
            output.to_str().unwrap(),
        ]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        let (ours, theirs) = (read_tensors(&output).unwrap(), read_tensors(&expected).unwrap());
        for name in ["features", "logits"] {
            assert_eq!(ours.contains_key(name), theirs.contains_key(name), "{family} {name}");
            let Some(theirs) = theirs.get(name) else { continue };
            assert_eq!(ours[name].shape, theirs.shape);
            let furthest = ours[name].values.iter().zip(&theirs.values).map(|(a, b)| (a - b).abs());
            assert!(furthest.fold(0.0, f32::max) < 2e-5, "{family} {name}");
        }
    }
}

#[test]
fn a_trained_adapter_names_images() {
    let dir = tempfile::tempdir().unwrap();
    let task = dir.path().join("halves");
    let images = task.join("images");
    for (part, folder) in [("train800", "train"), ("val200", "val"), ("test", "images")] {
        let mut list = String::new();
        std::fs::create_dir_all(task.join(folder)).unwrap();
        for i in 0..16 {
            let bright = |x: u32| if (x < 16) == (i % 2 == 0) { 230 } else { 20 };
            let image = image::RgbImage::from_fn(32, 32, |x, _| image::Rgb([bright(x); 3]));
            let name = format!("{folder}/{i:02}.png");
            image.save(task.join(&name)).unwrap();
            list += &format!("{name} {}\n", i % 2);
        }
        std::fs::write(task.join(format!("{part}.txt")), &list).unwrap();
    }
    std::fs::write(task.join("classes.txt"), "left\nright\n").unwrap();
    let out = dir.path().join("run");
    let trained = Command::new(env!("CARGO_BIN_EXE_vtab"))
        .args(["--method", "wegeft", "--epochs", "20", "--batch-size", "4", "--data"])
        .arg(dir.path())
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(trained.status.success(), "{}", text(&trained.stderr));
    let adapter = out.join("halves/wegeft/adapter");
    let adapter = adapter.to_str().unwrap();
    let done = predict(&[
        images.to_str().unwrap(),
        "--adapter",
        adapter,
        "--json",
        "--batch-size",
        "5",
    ]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let lines: Vec<serde_json::Value> = text(&done.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 16);
    for (i, line) in lines.iter().enumerate() {
        assert!(line["image"].as_str().unwrap().ends_with(&format!("{i:02}.png")));
        assert_eq!(line["label"], ["left", "right"][i % 2], "{line}");
        assert!(line["probability"].as_f64().unwrap() > 0.5);
    }
    let one = images.join("01.png");
    let table = predict(&[one.to_str().unwrap(), "--adapter", adapter]);
    assert!(text(&table.stdout).contains("| right"), "{}", text(&table.stdout));
    let list = task.join("test.txt");
    let list = list.to_str().unwrap();
    let judged = predict(&["--labels", list, "--adapter", adapter, "--top-k", "2"]);
    assert!(judged.status.success(), "{}", text(&judged.stderr));
    let judged = text(&judged.stdout);
    assert!(
        judged.contains("16 images, top-1 100.0 %, top-2 100.0 %") && judged.contains("| left "),
        "{judged}"
    );
    let lines = predict(&["--labels", list, "--adapter", adapter, "--json"]);
    let last: serde_json::Value = serde_json::from_str(text(&lines.stdout).lines().last().unwrap()).unwrap();
    assert_eq!(last["confusion"], serde_json::json!([[8, 0], [0, 8]]));
    fails(&["--labels", &format!("{list}x"), "--adapter", adapter], &["test.txtx"]);
    fails(&["--labels", list], &["no head"]);
    // Trained for 32 px and this backbone: another one does not fit, and says where.
    let other = fixture("timm");
    fails(
        &[
            one.to_str().unwrap(),
            "--adapter",
            adapter,
            "--backbone",
            other.to_str().unwrap(),
        ],
        &["wegeft_phi"],
    );
    std::fs::write(Path::new(adapter).join("classifier.json"), "{").unwrap();
    fails(
        &[one.to_str().unwrap(), "--adapter", adapter],
        &["classifier.json is malformed"],
    );
}

#[test]
fn bad_input_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    fails(&[&path("none.png")], &["none.png"]);
    fails(&[dir.path().to_str().unwrap()], &["holds no"]);
    std::fs::write(path("half.png"), "not an image").unwrap();
    fails(&[&path("half.png")], &["half.png"]);
    fails(&[&path("half.png"), "--adapter", &path("nowhere")], &["nowhere"]);
    fails(
        &[&path("half.png"), "--backbone", "no such thing"],
        &["no such thing", "org/name"],
    );
    let expected = fixture("timm").join("expected.safetensors");
    let own = read_tensors(&expected).unwrap()["pixel_values"].shape[2];
    let other = (own + 8).to_string();
    let backbone = fixture("timm");
    let (expected, backbone) = (expected.to_str().unwrap(), backbone.to_str().unwrap());
    let args = [expected, "--backbone", backbone, "--image-size", &other];
    fails(&args, &["--image-size", &other, "not resized"]);
    let mut damaged = read_tensors(&fixture("timm").join("model.safetensors")).unwrap();
    damaged.get_mut("norm.weight").unwrap().values[0] = f32::NAN;
    std::fs::copy(fixture("timm").join("config.json"), path("config.json")).unwrap();
    write_tensors(Path::new(&path("model.safetensors")), &damaged).unwrap();
    fails(
        &[expected, "--backbone", dir.path().to_str().unwrap()],
        &[
            "model.safetensors",
            "'norm.weight' has elements that are NaN or infinite",
        ],
    );
    std::fs::copy(fixture("timm").join("model.safetensors"), path("model.safetensors")).unwrap();
    std::fs::write(path("preprocessor_config.json"), r#"{"image_mean": "x"}"#).unwrap();
    let backbone_of = dir.path().to_str().unwrap();
    fails(
        &[expected, "--backbone", backbone_of],
        &["preprocessor_config.json", "image_mean"],
    );
    fails(
        &[expected, "--backbone", &path("config.json")],
        &["config.json", "not a .safetensors file"],
    );
    let weights = fixture("timm").join("model.safetensors");
    fails(&[weights.to_str().unwrap()], &["pixel_values"]);
    fails(&[weights.to_str().unwrap(), &path("half.png")], &["not both"]);
    fails(&[&path("half.png"), "--image-size", "30"], &["30", "patch size 8"]);
}

#[cfg(unix)]
#[test]
fn output_that_nobody_reads_is_no_panic() {
    use std::process::Stdio;
    let run = |stdout: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_predict"));
        command.arg(fixture("timm").join("expected.safetensors"));
        command.arg("--backbone").arg(fixture("timm"));
        let child = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let ended = child.wait_with_output().unwrap();
        (ended.status.code(), text(&ended.stderr))
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(run(writer.into()), (Some(0), String::new()));
    if let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") {
        let (code, message) = run(full.into());
        assert_eq!(code, Some(1), "{message}");
        assert!(message.contains("cannot write to standard output"), "{message}");
    }
}

#[test]
fn image_sizes_beyond_all_measure_are_refused_before_anything_is_built() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image.png");
    image::RgbImage::new(8, 8).save(&image).unwrap();
    let image = image.to_str().unwrap();
    for size in ["100000", "2147483648", "9223372036854775808", "0"] {
        fails(&["--image-size", size, image], &["--image-size", size]);
        let description = format!(r#"{{"backbone": null, "image_size": {size}, "classes": ["a", "b"]}}"#);
        std::fs::write(dir.path().join("classifier.json"), description).unwrap();
        fails(
            &["--adapter", dir.path().to_str().unwrap(), image],
            &["image_size", size],
        );
    }
}

/// The rules of transformers' pipeline for image classification.
#[test]
fn scores_are_those_of_the_problem_type_and_labels_may_be_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let backbone = dir.path().join("backbone");
    std::fs::create_dir(&backbone).unwrap();
    let (from, to) = (fixture("vit"), &backbone);
    std::fs::copy(from.join("model.safetensors"), to.join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(from.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["id2label"] = serde_json::json!({ "0": 10, "1": 20, "2": 30, "3": 40, "4": 50 });
    let input = from.join("expected.safetensors");
    let logits = read_tensors(&input).unwrap()["logits"].clone();
    let first: Vec<f64> = logits.values[..5].iter().map(|value| f64::from(*value)).collect();
    let best = (0..5).max_by(|a, b| first[*a].total_cmp(&first[*b])).unwrap();
    let sum: f64 = first.iter().map(|value| value.exp()).sum();
    for (problem, field, expected) in [
        (serde_json::Value::Null, "probability", first[best].exp() / sum),
        (
            "single_label_classification".into(),
            "probability",
            first[best].exp() / sum,
        ),
        (
            "multi_label_classification".into(),
            "probability",
            1.0 / (1.0 + (-first[best]).exp()),
        ),
        ("regression".into(), "value", first[best]),
    ] {
        config["problem_type"] = problem;
        std::fs::write(backbone.join("config.json"), config.to_string()).unwrap();
        let args = [
            input.to_str().unwrap(),
            "--backbone",
            backbone.to_str().unwrap(),
            "--json",
        ];
        let done = predict(&args);
        let lines = text(&done.stdout);
        assert!(done.status.success(), "{}", text(&done.stderr));
        let line: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        let value = line[field].as_f64().unwrap();
        assert!((value - expected).abs() < 1e-4, "{line}, expected {expected}");
        assert_eq!(line["label"], (10 * (best + 1)).to_string(), "{line}");
    }
}

#[test]
fn images_are_prepared_as_the_model_s_files_say_and_classes_have_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let backbone = dir.path().join("backbone");
    std::fs::create_dir(&backbone).unwrap();
    std::fs::copy(
        fixture("vit").join("model.safetensors"),
        backbone.join("model.safetensors"),
    )
    .unwrap();
    let config = std::fs::read_to_string(fixture("vit").join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["id2label"] = serde_json::json!({ "0": "a cat", "1": "a dog", "2": "a bird", "3": "a fish", "4": "a cow" });
    std::fs::write(backbone.join("config.json"), config.to_string()).unwrap();
    let image = dir.path().join("image.png");
    image::RgbImage::from_fn(60, 40, |x, y| image::Rgb([4 * x as u8, 6 * y as u8, (x * y) as u8]))
        .save(&image)
        .unwrap();
    let output = |files: &[(&str, &str)], more: &[&str]| {
        for (name, content) in files {
            std::fs::write(backbone.join(name), content).unwrap();
        }
        let path = dir.path().join("output.safetensors");
        let args = [
            image.to_str().unwrap(),
            "--backbone",
            backbone.to_str().unwrap(),
            "--output",
            path.to_str().unwrap(),
        ];
        let done = predict(&[&args[..], more].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
        read_tensors(&path).unwrap()["logits"].values.clone()
    };
    // Without a file the processor of the family, for the model's size.
    let plain = output(&[], &[]);
    let bilinear = output(&[], &["--resize", "bilinear-antialias"]);
    // Up to the rounding to bytes, which only the processor does.
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3);
    assert!(close(&plain, &bilinear), "{plain:?} {bilinear:?}");
    let raw = output(&[("preprocessor_config.json", r#"{"do_normalize": false}"#)], &[]);
    assert!(!close(&plain, &raw));
    let own = r#"{"image_processor": {"do_normalize": false}}"#;
    let processor = output(
        &[("preprocessor_config.json", "{}"), ("processor_config.json", own)],
        &[],
    );
    assert_eq!(processor, raw);
    let shown = predict(&[
        image.to_str().unwrap(),
        "--backbone",
        backbone.to_str().unwrap(),
        "--json",
    ]);
    assert!(text(&shown.stdout).contains("a "), "{}", text(&shown.stdout));
}
