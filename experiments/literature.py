"""The two published recipes for A2N, as reference trials on an experiment's own network size and budget."""

from dataclasses import replace

from study import TrialConfig


def authors(base: TrialConfig) -> TrialConfig:
    """Returns the authors' recipe (arXiv 2104.09497) on an experiment's network and budget.

    Mean L1 loss, Adam at 5e-4, halved at every tenth of the budget, inputs in 0..255.
    """
    return replace(
        base,
        model=replace(base.model, temperature=30.0, reduction=4, input_range=255),
        data=replace(base.data, sampling="images", augmentation="dihedral", train_kernel="matlab_bicubic"),
        train=replace(
            base.train,
            loss="l1",
            loss_reduction="mean",
            batch_size=32,
            learning_rate=5e-4,
            schedule="step",
            step_interval=0.1,
            step_factor=0.5,
            adam_beta1=0.9,
            adam_beta2=0.999,
            adam_eps=1e-8,
        ),
    )


def blog(base: TrialConfig) -> TrialConfig:
    """Returns the reimplementation's recipe on an experiment's network and budget.

    Summed Charbonnier loss, Adam at a constant 5e-4, inputs in 0..1, sub-images, LR by Pillow. The sub-images are the
    experiment's own (`data.subimage_window` and `data.subimage_step`, by default 480 and 200 as in the blog).
    """
    return replace(
        base,
        model=replace(base.model, temperature=30.0, reduction=4, input_range=1),
        data=replace(base.data, sampling="subimages", augmentation="dihedral", train_kernel="pillow_bicubic"),
        train=replace(
            base.train,
            loss="charbonnier",
            charbonnier_eps=1e-6,
            loss_reduction="sum",
            batch_size=32,
            learning_rate=5e-4,
            schedule="constant",
            adam_beta1=0.9,
            adam_beta2=0.999,
            adam_eps=1e-8,
        ),
    )


def references(base: TrialConfig) -> dict[str, TrialConfig]:
    """Returns both recipes by name."""
    return {"authors": authors(base), "blog": blog(base)}
