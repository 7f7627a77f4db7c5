#!/usr/bin/env bash
# Every training of docs/RESULTS.md, in order of importance. Typed again it goes on where it was, until nothing is left.
#
#   experiments/answer.sh cpu DATA ROOT                 one core, the small networks
#   experiments/answer.sh gpu DATA ROOT [MINUTES OUT]   one GPU, the full A2N; a window of MINUTES, after which OUT
#                                                       holds the root that the next window begins with
#
# DATA is a folder for --data with train, valid, Set5 and Set14. The journals are the record; MLflow and the Optuna view
# are filled from them by study.sync.
set -euo pipefail
kind=$1 data=$2 root=$3 minutes=${4:-} out=${5:-}
case $kind in
    cpu) search=a2n_x2_cpu claims=claims_x2_cpu kernels=kernels_x2_cpu scratch=scratch_x4_cpu trials=50
         longer=61440 x4=3840 where=()
         export OMP_NUM_THREADS=1 ;; # as the published records have it: other threads give other bits
    gpu) search=a2n_x2_small_pictures claims=claims_x2 kernels=kernels_x2 scratch=scratch_x4 trials=50
         longer=1600000 x4=128000 where=(--gpus 0) ;;
    *) echo "expected cpu or gpu, got $kind" >&2; exit 2 ;;
esac

# ${name[@]+"${name[@]}"}: to bash 3.2, which macOS has, an empty array is an unset one, and set -u ends the script.

finish() {
    if [ -n "$out" ]; then
        for study in "$search" "$claims" "$kernels" "$scratch"; do
            local also=()
            [ "$study" != "$claims" ] || also=(--every-seed)
            [ -f "$root/$study/journal.jsonl" ] || continue
            python -m experiments.carry --root "$root" --study-name "$study" --to "$out" ${also[@]+"${also[@]}"}
        done
    fi
    exit "$1"
}

left() { # seconds of the window
    local seconds=$((60 * minutes - SECONDS))
    [ "$seconds" -ge 30 ] || finish 0
    limit=(--timeout "${seconds}s")
}

step() { # COMMAND ARGUMENTS…: until it is done or the window ends
    limit=()
    [ -z "$minutes" ] || left
    python -m "$@" --root "$root" --data "$data" --tracking-uri none \
        ${where[@]+"${where[@]}"} ${limit[@]+"${limit[@]}"} || finish $?
}

run() { step study.run --storage none --experiment "$1" --study-name "$1" --trials "$2"; }
train() { step study.train "$2" --study-name "$1" --patches "$3" ${4:+--transfer-from "$4"}; }

run "$search" "$trials"
train "$search" best "$longer"
train "$search" 0 "$longer" # the authors' recipe
train "$search" 1 "$longer" # the blog's
[ -z "$minutes" ] || left # a training that the window cut short is not asked for its scores
python -m experiments.longer --root "$root" --study-name "$search" || finish $?
run "$claims" 13
run "$kernels" 6
run "$scratch" 1
[ -z "$minutes" ] || left # nor a search for its trials
pairs=$(python -m experiments.seeds --root "$root" --study-name "$scratch" --x2 "$claims") || finish $?
while read -r trial weights <&3; do
    [ -z "$trial" ] || train "$scratch" "$trial" "$x4" "$weights"
done 3<<< "$pairs"
python -m experiments.transferred --root "$root" --study-name "$scratch" --x2 "$claims" || finish $?
finish 0
