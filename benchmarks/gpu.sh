#!/usr/bin/env bash
# Every check and benchmark that waits for an NVIDIA GPU, in one call of under ten minutes; tables go to $OUT.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD CUBLAS_WORKSPACE_CONFIG=:4096:8
python benchmarks/gpu_checks.py "${OUT:-benchmarks/out}"
python benchmarks/data.py --out "${OUT:-benchmarks/out}" --rounds 3
python benchmarks/strips.py --out "${OUT:-benchmarks/out}" --device cuda:0 --precision fp32 bf16
python -m pytest -q -m gpu tests
