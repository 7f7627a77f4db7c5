"""Claims of the A2N reimplementation's author, and one more question, as comparisons of one change at a time.

A claim about a setting holds for the base that the setting was changed in. Each experiment built from these claims has
its own base.
"""

from dataclasses import replace

from study import Experiment, TrialConfig

_BATCHES = {"8 at 2.5e-4": (8, 2.5e-4), "16 at 5e-4": (16, 5e-4), "32 at 1e-3": (32, 1e-3)}
"""Batch size and learning rate, doubled together."""
_ONE_RATE = {"8 at 5e-4": (8, 5e-4), "32 at 5e-4": (32, 5e-4)}
"""Together with 16 at 5e-4: the same batch sizes at one learning rate."""


def settings(base: TrialConfig) -> dict[str, TrialConfig]:
    """Returns every setting that differs from the base, by name."""
    changes = {
        "l2": {"train.loss": "l2"},
        "charbonnier": {"train.loss": "charbonnier"},
        "pillow": {"data.train_kernel": "pillow_bicubic"},
        "sub-images": {"data.sampling": "subimages"},
        "range 255, t 1": {"model.temperature": 1.0},
        "range 1, t 30": {"model.input_range": 1},
        "range 1, t 1": {"model.input_range": 1, "model.temperature": 1.0},
    }
    for name, (batch, rate) in (_BATCHES | _ONE_RATE).items():
        changes[name] = {"train.batch_size": batch, "train.learning_rate": rate}
    return {name: base.with_values(values) for name, values in changes.items()}


COMPARISONS = {
    "Does Charbonnier learn faster than L1 (the base) and L2?": [
        ("charbonnier", "base"),
        ("charbonnier", "l2"),
        ("base", "l2"),
    ],
    "Is it right to double the learning rate where the batch is doubled?": [
        ("32 at 1e-3", "32 at 5e-4"),
        ("8 at 2.5e-4", "8 at 5e-4"),
        ("16 at 5e-4", "8 at 2.5e-4"),
        ("32 at 1e-3", "16 at 5e-4"),
    ],
    "Does Pillow's bicubic cost anything against MATLAB's (the base) for training LR?": [("pillow", "base")],
    # This compares two changes at once, because images smaller than a sub-image give none.
    # The wording is part of the recorded studies' digest, so it stays.
    "Do sub-images, without the pictures smaller than one, beat all pictures whole (the base)?": [
        ("sub-images", "base"),
    ],
    "Does temperature 30 hold back inputs in 0..1, and not those in 0..255 (the base)?": [
        ("range 1, t 30", "range 1, t 1"),
        ("base", "range 255, t 1"),
        ("base", "range 1, t 30"),
        ("base", "range 1, t 1"),
    ],
}


def claims(base: TrialConfig, *, replicates: int) -> Experiment:
    """Returns the experiment with all claims on one base.

    L1, MATLAB's bicubic, patches from whole images, inputs in 0..255 and temperature 30 replace the base's own values.
    """
    base = replace(
        base,
        model=replace(base.model, temperature=30.0, input_range=255),
        data=replace(base.data, train_kernel="matlab_bicubic", sampling="images"),
        train=replace(base.train, loss="l1"),
    )
    return Experiment(
        question="Which of the blog's claims about training A2N hold at this budget?",
        base=base,
        references=settings(base),
        comparisons=COMPARISONS,
        scheduler="none",
        replicates=replicates,
    )
