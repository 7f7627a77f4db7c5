"""x4 from scratch, the baseline for transfer. It trains on as many patches as x2 and then x4 together.

The other half of the comparison are trainings of the same seeds on half the patches that start from x2 weights
(`study.train K --transfer-from`). `experiments.transferred` compares the two. experiments/answer.sh has all commands.
"""

from dataclasses import replace

from study import Experiment, TrialConfig


def from_scratch(x2: TrialConfig, *, lr_crop_size: int, replicates: int) -> Experiment:
    """Returns the experiment: the configuration behind the x2 weights, at x4 with twice the budget.

    Args:
        lr_crop_size: side of the LR validation crops in pixels. Their HR side is four times as large.
        replicates: four of them make five seeds.
    """
    return Experiment(
        question="How far does x4 get from scratch on the patches that x2 and then x4 would have?",
        base=replace(
            x2,
            data=replace(x2.data, scale=4),
            train=replace(x2.train, budget_patches=2 * x2.train.budget_patches),
            evaluation=replace(x2.evaluation, lr_crop_size=lr_crop_size),
        ),
        scheduler="none",
        replicates=replicates,
    )
