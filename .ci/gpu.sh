#!/usr/bin/env bash
# Methods, trainings and texts on a GPU backend give what they give on flex: wgpu on Mesa's lavapipe, which computes on the CPU
# (docs/gpus.md). The Debian package mesa-vulkan-drivers is installed if lavapipe is not there and root can install it; without
# it nothing is tested here.
set -euo pipefail
cd "$(dirname "$0")/.."
driver() { # a lavapipe that the Vulkan loader finds
  compgen -G '/usr/share/vulkan/icd.d/lvp_icd*.json' > /dev/null
}
if ! driver && command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
  (timeout 60 apt-get update && timeout 240 apt-get install -y --no-install-recommends mesa-vulkan-drivers libvulkan1) \
    > /dev/null 2>&1 || true
fi
if ! driver; then
  echo "there is no Vulkan driver for the CPU (mesa-vulkan-drivers): nothing is tested on a GPU backend"
  exit 0
fi
# The default build needs no crate of wgpu.
if ! cargo fetch --locked > /dev/null 2>&1; then
  echo "not every crate of Cargo.lock can be fetched: nothing is tested on a GPU backend"
  exit 0
fi
VK_DRIVER_FILES=$(compgen -G '/usr/share/vulkan/icd.d/lvp_icd*.json' | head -n 1)
# Lavapipe, whatever else there is; the second name is what older loaders read.
export VK_DRIVER_FILES VK_ICD_FILENAMES=$VK_DRIVER_FILES
export WEGEFT_NEEDS_GPU=1             # a GPU that is not found is a failure
export CUBECL_AUTOTUNE_LEVEL=minimal  # few kernels are tried: what is tested is numbers, not speed
XDG_RUNTIME_DIR=$(mktemp -d)
export XDG_RUNTIME_DIR
trap 'rm -rf "$XDG_RUNTIME_DIR"' EXIT
cargo test --workspace --features experiments/wgpu --test gpu
