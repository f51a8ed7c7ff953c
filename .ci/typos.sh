#!/usr/bin/env bash
# Spelling, by typos.toml. typos is installed into target/ if there is none.
set -euo pipefail
cd "$(dirname "$0")/.."
typos=typos
if ! command -v "$typos" > /dev/null; then
  folder=${CARGO_TARGET_DIR:-target}/typos
  typos=$folder/bin/typos
  if ! [ -x "$typos" ]; then
    timeout 120 python3 -m pip install --quiet --no-deps --only-binary :all: --require-hashes --target "$folder" \
      -r .ci/typos-requirements.txt > /dev/null 2>&1 || true
  fi
  if ! [ -x "$typos" ]; then
    echo "there is no typos, and it cannot be installed: spelling is not checked"
    exit 0
  fi
fi
"$typos" .
