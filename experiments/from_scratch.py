"""x4 from scratch, with as many patches as x2 and then x4 have together: what transfer is held against.

The other half are trainings of the same seeds on half the patches that start from x2 weights, `study.train K
--transfer-from`; `experiments.transferred` compares the two. experiments/answer.sh has all commands.
"""

from dataclasses import replace

from study import Experiment, TrialConfig


def from_scratch(x2: TrialConfig, *, lr_crop_size: int, replicates: int) -> Experiment:
    """The configuration that made the x2 weights, at x4 with twice the budget; five seeds with four replicates.

    Args:
        lr_crop_size: of the validation crops; their HR is four times as large.
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
