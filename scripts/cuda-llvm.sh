#!/bin/sh
# Puts LLVM where the build script of Burn's CUDA backend looks for it, so that the script does not download its own: the static
# libraries of a package on PyPI. Linux on x86-64, with Python 3.8 or later.
#
#     sh scripts/cuda-llvm.sh
#     CUDARC_CUDA_VERSION=13000 cargo build --release -p experiments --features cuda
#
# It needs 90 MB of downloads and 430 MB under $XDG_DATA_HOME/tracel (~/.local/share/tracel). PYTHON names another python3.
# To undo it, remove that folder.
set -eu

# The wanted release is part of the folder's name; Cargo.lock has it.
lock=$(dirname "$0")/../Cargo.lock
wanted=$(sed -n '/^name = "tracel-llvm-bundler"$/{n;s/^version = "\(.*\)"$/\1/p;}' "$lock")
package='mlc-llvm-static[all]==23.1.1.post0'
case "$wanted" in
23.*) ;;
*)
    echo "cuda-llvm.sh: the lock file asks for LLVM '$wanted', and this script has LLVM 23; give it another package" >&2
    exit 1
    ;;
esac

tracel=${XDG_DATA_HOME:-"$HOME/.local/share"}/tracel
llvm=$tracel/tracel-llvm-$wanted
marker=.tracel-llvm-installed
if [ -e "$llvm/$marker" ]; then
    echo "$llvm is already there"
    exit 0
fi
if [ -e "$llvm" ] && [ ! -L "$llvm" ]; then
    echo "cuda-llvm.sh: $llvm exists but is incomplete; remove it and start again" >&2
    exit 1
fi

mkdir -p "$tracel"
packages=$tracel/python
"${PYTHON:-python3}" -m venv "$packages"
"$packages/bin/python" -m pip install --quiet --disable-pip-version-check "$package"
prefix=$("$packages/bin/python" -m mlc_llvm_static.config --prefix)
version=$("$prefix/bin/llvm-config" --version)
ln -sfn "$prefix" "$llvm"
touch "$llvm/$marker"
echo "LLVM $version for Burn's CUDA backend is in $llvm"
