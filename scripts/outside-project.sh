#!/usr/bin/env bash
# Makes a Cargo project outside the workspace, as a user of the library would have it, and runs it: models that were written for
# plain Burn (its TransformerEncoder and Lstm, a modern LSTM, ResNet, BERT, LLaMA, ALBERT with its tied embedding) with every
# method that fits them. Each is adapted, trained with burn-train's Learner, saved, merged, and loaded in a new process.
#
#     scripts/outside-project.sh FOLDER          make the project and test it
#     scripts/outside-project.sh FOLDER bench    make it, and measure steps beside Burn's own apply_lora
#     scripts/outside-project.sh FOLDER make     only make it
#
# FOLDER is created if it does not exist (the folder above it must), and must not lie inside the workspace. The first run compiles
# Burn in a release build that both share, 10 to 30 minutes on two cores; CARGO_TARGET_DIR says where. Versions are those of the workspace's Cargo.lock: remove FOLDER/Cargo.lock for the newest.
set -euo pipefail

usage="usage: outside-project.sh FOLDER [test|bench|make]"
folder=${1:?"$usage"}
task=${2:-test}
case "$task" in
test | bench | make) ;;
*)
    echo "$usage" >&2
    exit 2
    ;;
esac
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(cd "$(dirname "$folder")" && pwd)/$(basename "$folder")
case "$folder/" in
"$root"/*)
    echo "outside-project.sh: $folder lies inside the workspace; choose another folder" >&2
    exit 2
    ;;
esac

working=$root/crates/wegeft/tests/working
mkdir -p "$folder/src" "$folder/tests/working" "$folder/benches"
cp -R "$working/models" "$working/learner.rs" "$working/net.rs" "$working/others.rs" "$folder/tests/working/"
cp -R "$root/crates/wegeft/benches/models.rs" "$root/crates/wegeft/benches/measured" "$folder/benches/"
cp "$root/Cargo.lock" "$folder/"
cat >"$folder/tests/working/main.rs" <<'RUST'
//! Models of other projects, copied from the workspace by scripts/outside-project.sh.
#![allow(dead_code)] // what only other tests of the workspace use

mod learner;
mod models;
mod net;
mod others;
RUST
echo '//! A user of wegeft: see tests/working and benches.' >"$folder/src/lib.rs"
cat >"$folder/Cargo.toml" <<TOML
[package]
name = "outside"
version = "0.1.0"
edition = "2024"
publish = false

[dependencies]
burn = { version = "0.22.1", default-features = false, features = ["std", "flex", "autodiff", "train"] }
wegeft = { path = "$root/crates/wegeft", features = ["flex", "train"] }

[dev-dependencies]
comfy-table = { version = "7.1", default-features = false }
peak_alloc = "0.3"
tempfile = "3"

[[bench]]
name = "models"
harness = false

# Not part of another workspace above this folder.
[workspace]
TOML

cd "$folder"
case "$task" in
test) cargo test --release --test working -- --nocapture ;;
bench) cargo bench --bench models ;;
make) echo "made $folder" ;;
esac
