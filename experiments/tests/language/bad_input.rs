//! Bad input: one clear sentence each.

use crate::program::fails;

#[test]
fn bad_settings_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let out = out.to_str().unwrap();
    fails("finetune", &["--out", out], &["no training file", "--train-file"]);
    fails(
        "arithmetic",
        &["--out", out, "--sets", "gsm9k"],
        &["set 'gsm9k' is unknown", "one-step"],
    );
    fails(
        "arithmetic",
        &["--out", out, "--method", "magic"],
        &["'magic' is unknown"],
    );
    fails(
        "arithmetic",
        &["--out", out, "--learning-rate", "-1"],
        &["learning_rate"],
    );
    fails("arithmetic", &["--out", out, "--keep", "best"], &["'validation'"]);
    fails(
        "commonsense",
        &["--out", out, "--protocol", "newest"],
        &["'newest'", "new or old"],
    );
    fails(
        "commonsense",
        &["--out", out, "--train-file", "a.json"],
        &["--train-file needs --data"],
    );
    let preset = dir.path().join("preset.toml");
    std::fs::write(&preset, "epocs = 3\n").unwrap();
    fails(
        "finetune",
        &["--out", out, "--config", preset.to_str().unwrap()],
        &["preset.toml", "epocs"],
    );
}
