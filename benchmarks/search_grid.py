"""A part of the quickstart's space, small enough to train all of it: what searches are simulated on.

    for seed in 1 2; do
        python -m study.run --experiment benchmarks/search_grid.py --study-name grid-$seed --seed $seed --trials 120
    done
    python -m study.simulate --record grid-1 grid-2 > benchmarks/curves/search_grid.csv
"""

from dataclasses import replace

from experiments import quickstart
from study.space import Choice, Grid, Together

EXPERIMENT = replace(
    quickstart.EXPERIMENT,
    question="How well does each of 120 settings learn within the quickstart's budget?",
    nuisance={
        "train.loss": Choice("l1", "l2", "charbonnier"),
        # Both pairs of the blog, and every batch size of the quickstart with its largest learning rate or nearly so.
        Together("train.batch_size", "train.learning_rate"): [
            (8, 2e-3),
            (16, 1e-4),
            (16, 2e-3),
            (32, 5e-4),
            (32, 4e-3),
        ],
        "model.temperature": Grid(0.1, 1.0, 10.0, 100.0),
        "model.input_range": Choice(1, 255),
    },
    references={},
    sampler="grid",
    scheduler="none",
    replicates=0,
)
