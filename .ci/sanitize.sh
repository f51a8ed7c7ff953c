#!/usr/bin/env bash
# The unsafe code of wegeft-kernels under AddressSanitizer, under valgrind (memory that was never written) and under Miri. Needs a
# nightly toolchain, Miri its components miri and rust-src. Valgrind and Miri are left out where they are missing, which is said.
# Some minutes, most of them Miri's.
set -euo pipefail
cd "$(dirname "$0")/sanitize"
target=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}
RUSTFLAGS="-Zsanitizer=address" cargo +nightly test --target "$target"
if command -v valgrind > /dev/null; then
    program=$(cargo test --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
    RAYON_NUM_THREADS=2 valgrind --quiet --error-exitcode=1 "$program" --test-threads 1
else
    echo "there is no valgrind: reads of uninitialized memory are not looked for"
fi
if cargo +nightly miri --version > /dev/null 2>&1; then
    # Miri has no vector instructions and says that the processor has none; gemm then multiplies with its scalar code, through the
    # same pointers. Tree Borrows, because crossbeam-epoch, on which rayon rests, breaks the rules of Stacked Borrows; permissive
    # provenance, because it keeps pointers in integers. Rayon's threads never end, which Miri would call a leak.
    MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-ignore-leaks" \
        RAYON_NUM_THREADS=2 cargo +nightly miri test
else
    echo "there is no Miri: the rules for pointers are not checked"
fi
