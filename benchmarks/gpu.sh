#!/usr/bin/env bash
# Runs all checks and measurements that need an NVIDIA GPU, in ten parts with a time limit each.
#
#   benchmarks/gpu.sh --prepare [DIR]   on a machine with a network: fill $CARRIED with wheels, and the images of DIR
#   benchmarks/gpu.sh first             parts 1 to 7, at most six minutes
#   benchmarks/gpu.sh second            parts 8 to 10, at most four minutes
#   benchmarks/gpu.sh 3 7 curves        these parts
#
#   1 facts   2 steps   3 bits   4 study   5 waiting   6 memory   7 profile   8 table   9 throughput   10 pytest
#   only by name: checks, curves, data, strips
#
# Each part writes its results to $OUT (default benchmarks/out) as soon as it has them. gpu.md is the report, gpu.log has
# all other output, table.jsonl and throughput.jsonl have one line per row. If a part fails, the others still run.
#
# The machine with the GPU needs no network. Its $PYTHON (default python3) must have torch, numpy, h5py, opencv, pillow,
# scikit-image, scipy and pandas. It also needs the folder $CARRIED (default benchmarks/out/carried) that --prepare
# filled. MLflow and Ray are not used.
#
# Other variables: DEVICE=cpu rehearses everything in tiny sizes, and PATIENCE=5 multiplies all time limits by five.
# PYTHON_VERSION (default 3.12) is that of the wheels. NAMES lists the packages to bring, if the machine has some of them.
# DATA is a folder of images for part 4 (default: the photographs in scikit-image's wheel).
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-benchmarks/out}
carried=${CARRIED:-benchmarks/out/carried}
python=${PYTHON:-python3}
device=${DEVICE:-cuda:0}
patience=${PATIENCE:-1}
most_mib=60

# Only names. Their dependencies are downloaded too, except packages that the machine has.
names=(${NAMES:-optuna sqlalchemy alembic greenlet rich safetensors nvidia-ml-py matplotlib scikit-learn pytest hypothesis})
there=(torch numpy h5py opencv_python_headless pillow scikit_image scipy pandas)

prepare() { # [folder of images]
    local version=${PYTHON_VERSION:-3.12} platforms=() name glibc
    for glibc in 39 35 34 31 28 27 24 17; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
    rm -rf "$carried/wheels" "$carried/images"
    mkdir -p "$carried/wheels"
    "$python" -m pip download -q --only-binary=:all: --implementation cp --python-version "$version" \
        "${platforms[@]}" --platform manylinux2014_x86_64 -d "$carried/wheels" "${names[@]}" || return 1
    for name in "${there[@]}"; do rm -f "$carried/wheels/$name"-*.whl; done
    local wheels
    wheels=$(du -sm "$carried/wheels" | cut -f1)
    if [ "$wheels" -gt "$most_mib" ]; then
        echo "error: the wheels take $wheels MiB, expected at most $most_mib; shorten the list of names in $0" >&2
        return 1
    fi
    echo "$(ls "$carried/wheels" | wc -l) wheels for Python $version: $wheels MiB in $carried/wheels"
    if [ $# -gt 0 ]; then
        PYTHONPATH=$PWD "$python" benchmarks/gpu_images.py "$1" "$carried/images" --most-mib $((most_mib - wheels)) || return 1
    fi
    echo "next: copy $carried to the machine with the GPU, and run there: benchmarks/gpu.sh first"
}

if [ "${1:-}" = --prepare ]; then
    shift
    prepare "$@"
    exit
fi

case "${1:-}" in
    first) budget=360; parts=(1 2 3 4 5 6 7) ;;
    second) budget=240; parts=(8 9 10) ;;
    "" | -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' benchmarks/gpu.sh; exit 2 ;;
    *) budget=540; parts=("$@") ;;
esac
budget=$((budget * patience))

known=" 1 2 3 4 5 6 7 8 9 10 facts steps bits study waiting memory profile table throughput pytest checks curves data strips "
for name in "${parts[@]}"; do
    if [[ $known != *" $name "* ]]; then
        echo "error: expected first, second, --prepare or parts of$known; got $name" >&2
        exit 2
    fi
done

mkdir -p "$out"
out=$(cd "$out" && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/gpu-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
export PYTHONPATH=$PWD CUBLAS_WORKSPACE_CONFIG=:4096:8 PYTHONUNBUFFERED=1 TMPDIR=$scratch
export DEVICE=$device TORCHINDUCTOR_CACHE_DIR=$scratch/inductor TRITON_CACHE_DIR=$scratch/triton

# Installs the wheels into a new environment that also sees the machine's packages, even if its Python is in a venv.
install() {
    "$python" -m venv --without-pip --system-site-packages "$scratch/venv" || return 1
    local own
    own=$("$scratch/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$python" -c 'import sysconfig
for place in sorted({sysconfig.get_path(kind) for kind in ("purelib", "platlib")}):
    print(f"import site; site.addsitedir({place!r})")' >"$own/of_the_machine.pth"
    local pip=("$python" -m pip --python "$scratch/venv/bin/python" install -q --no-index --no-deps --no-compile) wheel
    python=$scratch/venv/bin/python
    "${pip[@]}" --find-links "$carried/wheels" "$carried"/wheels/*.whl && return
    for wheel in "$carried"/wheels/*.whl; do "${pip[@]}" "$wheel"; done # as many as fit this machine
    return 1
}

if ls "$carried"/wheels/*.whl >/dev/null 2>&1; then
    install >>"$out/gpu.log" 2>&1 || echo "warning: some wheels of $carried/wheels cannot be installed here: see $out/gpu.log" >&2
fi
if ! "$python" -c 'import torch, optuna, rich, sqlalchemy, safetensors, pytest, hypothesis' 2>>"$out/gpu.log"; then
    echo "error: a package is missing (see the end of $out/gpu.log): run benchmarks/gpu.sh --prepare on a machine with a network, and copy $carried here" >&2
    exit 2
fi

failed=0
part() { # title, seconds, command: its stdout goes to gpu.md, its stderr to gpu.log
    local title=$1 limit=$(($2 * patience)) left=$((budget - SECONDS)) begun=$SECONDS from status
    shift 2
    if [ "$left" -lt 8 ]; then
        echo "== $title: left out, because the time is up" | tee -a "$out/gpu.md"
        failed=1
        return
    fi
    [ "$limit" -lt "$left" ] || limit=$left
    from=$(stat -c %s "$out/gpu.md" 2>/dev/null || echo 0)
    printf '\n## %s\n\n' "$title" >>"$out/gpu.md"
    printf '\n== %s: %s\n' "$title" "$*" >>"$out/gpu.log"
    timeout -k 5 "$limit" "$@" >>"$out/gpu.md" 2>>"$out/gpu.log"
    status=$?
    case $status in
        0) status="ok" ;;
        124 | 137) status="STOPPED at its time limit"; failed=1 ;;
        *) status="FAILED ($status)"; failed=1 ;;
    esac
    printf '\n%s: %s, %s s\n' "$title" "$status" $((SECONDS - begun)) >>"$out/gpu.md"
    tail -c +$((from + 1)) "$out/gpu.md"
    [ "$status" = ok ] || tail -n 25 "$out/gpu.log"
}

# On the CPU the same tests run with its plain engine. Warnings are shown, but do not fail a test here.
tests() { # title, seconds, pytest's selection
    local title=$1 limit=$2
    shift 2
    local marked=(-m gpu)
    [ "$device" != cpu ] || marked=(-m "not gpu and not slow and not long")
    part "$title" "$limit" "$python" -m pytest -p no:cacheprovider -W default -rA --tb=short --durations=0 -o addopts= \
        --import-mode=importlib "${marked[@]}" "$@"
}

on_gpu=tests/sr_core/test_step_on_gpu.py
marked_gpu=tests/sr_core
tiny=()
if [ "$device" = cpu ]; then
    tiny=(--tiny)
    marked_gpu=tests/sr_core/test_batched_metrics.py
fi
for name in "${parts[@]}"; do
    case $name in
        1 | facts) part "1 facts" 40 "$python" benchmarks/gpu_facts.py --device "$device" ;;
        2 | steps) tests "2 steps" 90 $on_gpu -k "learns_as or hosts_patches" ;;
        3 | bits) tests "3 bits" 100 $on_gpu -k "same_bits or resumed" ;;
        4 | study) part "4 study" 100 "$python" benchmarks/gpu_study.py --device "$device" --root "$scratch/study" ${DATA:+--data "$DATA"} ;;
        5 | waiting) tests "5 waiting" 45 $on_gpu -k "no_step_waits" ;;
        6 | memory) tests "6 memory" 45 $on_gpu -k "memory or in_parts" ;;
        7 | profile) part "7 profile" 40 "$python" benchmarks/gpu_profile.py --device "$device" --out "$out" ;;
        8 | table)
            part "8 table" 70 "$python" benchmarks/gpu_steps.py --device "$device" --out "$out" --rows plain "${tiny[@]}"
            part "8 table, compiled" 80 "$python" benchmarks/gpu_steps.py --device "$device" --out "$out" --rows compiled "${tiny[@]}"
            part "8 table, usual" 40 "$python" benchmarks/gpu_steps.py --device "$device" --out "$out" --rows usual "${tiny[@]}" ;;
        9 | throughput) part "9 throughput" 60 "$python" benchmarks/gpu_throughput.py --device "$device" --out "$out" ;;
        10 | pytest) tests "10 pytest" 120 $marked_gpu ;;
        checks) part checks 150 "$python" benchmarks/gpu_checks.py ;;
        curves) part curves 200 "$python" benchmarks/gpu_curves.py --out "$out" ;;
        data) part data 60 "$python" benchmarks/data.py --out "$out" --rounds 3 --seconds 0.5 ;;
        strips) part strips 60 "$python" benchmarks/strips.py --out "$out" --device "$device" --precision fp32 bf16 ;;
    esac
done
exit $failed
