"""A part of the quickstart's space, small enough to train all of it: what searches are simulated on.

    for seed in 1 2; do
        python -m study.run --experiment benchmarks/search_grid.py --study-name grid-$seed --seed $seed --trials 120
    done
    python -m study.simulate --record grid-1 grid-2 > benchmarks/curves/search_grid.csv

It holds the hyperparameters that decide something within 1,920 patches. Temperature and reduction, which do not, are
left out: they would only make more copies of the best setting.
"""

from dataclasses import replace

from experiments import quickstart
from study.space import Choice, Together

EXPERIMENT = replace(
    quickstart.EXPERIMENT,
    question="How well does each of 120 settings learn within the quickstart's budget?",
    nuisance={
        "train.loss": Choice("l1", "l2", "charbonnier"),
        # Every batch size of the quickstart with its largest learning rate or the next, and both pairs of the blog.
        Together("train.batch_size", "train.learning_rate"): [
            (8, 2e-3),
            (16, 1e-4),
            (16, 2e-3),
            (32, 5e-4),
            (32, 4e-3),
        ],
        "model.input_range": Choice(1, 255),
        "data.train_kernel": Choice("matlab_bicubic", "pillow_bicubic", "pillow_box", "cv2_cubic"),
    },
    references={},
    sampler="grid",
    scheduler="none",
    replicates=0,
)
