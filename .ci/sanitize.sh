#!/usr/bin/env bash
# The unsafe code of wegeft-kernels under AddressSanitizer, under valgrind (memory that was never written) and, where it is
# installed, Miri. Needs a nightly toolchain; about a minute.
set -euo pipefail
cd "$(dirname "$0")/sanitize"
target=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}
RUSTFLAGS="-Zsanitizer=address" cargo +nightly test --target "$target"
if command -v valgrind > /dev/null; then
    program=$(cargo test --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
    RAYON_NUM_THREADS=2 valgrind --quiet --error-exitcode=1 "$program" --test-threads 1
fi
if cargo +nightly miri --version > /dev/null 2>&1; then
    # Miri has no vector instructions of the matrix product.
    MIRIFLAGS="-Zmiri-disable-isolation" cargo +nightly miri test memory
fi
