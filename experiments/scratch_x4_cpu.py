"""A small A2N at x4 from scratch, with five seeds: what x4 from x2 weights is held against at equal total budget.

The other half are trainings of the same seeds on half the patches, `study.train K --transfer-from` the weights that
`claims_x2_cpu`'s base came to with its 3,840 (docs/RESULTS.md has the commands).
"""

from dataclasses import replace

from experiments.claims_x2_cpu import EXPERIMENT as CLAIMS
from study.experiment import Experiment

BASE = replace(
    CLAIMS.base,
    data=replace(CLAIMS.base.data, scale=4),
    train=replace(CLAIMS.base.train, budget_patches=7_680),
    evaluation=replace(CLAIMS.base.evaluation, lr_crop_size=60),
)

EXPERIMENT = Experiment(
    question="How far does x4 get from scratch on the patches that x2 and then x4 would have?",
    base=BASE,
    scheduler="none",
    replicates=4,
)
