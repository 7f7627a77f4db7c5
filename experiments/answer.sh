#!/usr/bin/env bash
# Runs every training of docs/development/results.md, the most important first. Run it again to resume where it stopped.
#
#   experiments/answer.sh cpu DATA ROOT     the small networks on one core
#   experiments/answer.sh gpu DATA ROOT     the full A2N on one GPU
#
# DATA is a folder for --data with train, valid, Set5 and Set14. The journals are the record. study.sync fills MLflow
# and Optuna's database from them.
set -euo pipefail
kind=$1 data=$2 root=$3
case $kind in
    cpu) search=a2n_x2_cpu claims=claims_x2_cpu kernels=kernels_x2_cpu scratch=scratch_x4_cpu trials=50
         longer=61440 x4=3840 where=()
         export OMP_NUM_THREADS=1 ;; # as in the published records: another number of threads gives other bits
    gpu) search=a2n_x2_small_pictures claims=claims_x2 kernels=kernels_x2 scratch=scratch_x4 trials=50
         longer=1600000 x4=128000 where=(--gpus 0) ;;
    *) echo "error: expected cpu or gpu, got $kind" >&2; exit 2 ;;
esac

step() { # COMMAND ARGUMENTS…
    # ${where[@]+"${where[@]}"}: bash 3.2, which macOS has, takes an empty array for an unset one, an error under set -u.
    python -m "$@" --root "$root" --data "$data" --tracking-uri none ${where[@]+"${where[@]}"}
}

run() { step study.run --storage none --experiment "$1" --study-name "$1" --trials "$2"; }
train() { step study.train "$2" --study-name "$1" --patches "$3" ${4:+--transfer-from "$4"}; }

run "$search" "$trials"
train "$search" best "$longer"
train "$search" 0 "$longer" # the authors' recipe
train "$search" 1 "$longer" # the blog's recipe
python -m experiments.longer --root "$root" --study-name "$search"
run "$claims" 13
run "$kernels" 6
run "$scratch" 1
pairs=$(python -m experiments.seeds --root "$root" --study-name "$scratch" --x2 "$claims")
while read -r trial weights <&3; do
    [ -z "$trial" ] || train "$scratch" "$trial" "$x4" "$weights"
done 3<<< "$pairs"
python -m experiments.transferred --root "$root" --study-name "$scratch" --x2 "$claims"
