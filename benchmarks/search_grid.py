"""A part of the quickstart's space that is small enough to train completely. Searches are simulated on its curves.

    for seed in 1 2; do
        python -m study.run --experiment benchmarks/search_grid.py --study-name grid-$seed --seed $seed --trials 72
    done
    python -m study.simulate --record grid-1 grid-2 > benchmarks/curves/search_grid.csv

It has the three hyperparameters that mattered most in the quickstart's own studies. Temperature, reduction and input
range mattered little there. With them the grid would hold many settings as good as the best, and every search would
find one.
"""

from dataclasses import replace

from experiments import quickstart
from study.question.space import Choice, Together

EXPERIMENT = replace(
    quickstart.EXPERIMENT,
    question="How well does each of 72 settings learn within the quickstart's budget?",
    nuisance={
        "train.loss": Choice("l1", "l2", "charbonnier"),
        # The blog's two pairs (1e-4 and 5e-4), and the best learning rate in the quickstart.
        Together("train.batch_size", "train.learning_rate"): [
            (8, 2e-3),
            (16, 1e-4),
            (16, 2e-3),
            (32, 5e-4),
        ],
        "data.train_kernel": quickstart.EXPERIMENT.nuisance["data.train_kernel"],
    },
    references={},
    sampler="grid",
    scheduler="none",
    replicates=0,
)
