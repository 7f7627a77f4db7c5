#!/usr/bin/env bash
# Every check and benchmark that waits for an NVIDIA GPU, in one call of under ten minutes; tables go to $OUT.
# Needs torch, numpy, h5py, opencv, pillow and scikit-image. One part that fails does not keep the others from running.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-benchmarks/out}
export PYTHONPATH=$PWD CUBLAS_WORKSPACE_CONFIG=:4096:8 PYTHONUNBUFFERED=1
export TORCHINDUCTOR_CACHE_DIR=${TMPDIR:-/tmp}/inductor TRITON_CACHE_DIR=${TMPDIR:-/tmp}/triton
mkdir -p "$out"
failed=0
part() { # seconds, command
    local limit=$1
    shift
    echo "== $*"
    timeout "$limit" "$@" || { echo "FAILED ($?): $*"; failed=1; }
}
part 200 python benchmarks/train_step.py --out "$out" --rounds 5
part 270 python benchmarks/gpu_checks.py "$out"
part 50 python benchmarks/data.py --out "$out" --rounds 3 --seconds 0.5
part 50 python benchmarks/strips.py --out "$out" --device cuda:0 --precision fp32 bf16
python -c 'import pytest, hypothesis' 2>/dev/null && part 25 python -m pytest -q -m gpu tests/sr_core
exit $failed
