"""A part of the quickstart's space, small enough to train all of it: what searches are simulated on.

    for seed in 1 2; do
        python -m study.run --experiment benchmarks/search_grid.py --study-name grid-$seed --seed $seed --trials 72
    done
    python -m study.simulate --record grid-1 grid-2 > benchmarks/curves/search_grid.csv

It holds the three hyperparameters that decided most in the quickstart's own studies. With temperature, reduction and
input range, which decided little there, it would hold copies of the best setting, and every search would find one.
"""

from dataclasses import replace

from experiments import quickstart
from study.question.space import Choice, Together

EXPERIMENT = replace(
    quickstart.EXPERIMENT,
    question="How well does each of 72 settings learn within the quickstart's budget?",
    nuisance={
        "train.loss": Choice("l1", "l2", "charbonnier"),
        # Both pairs of the blog (1e-4, 5e-4), and the learning rate that did best in the quickstart.
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
