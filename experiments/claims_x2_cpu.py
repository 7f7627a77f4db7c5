"""The claims of `experiments.claims` on the small network of `a2n_x2_cpu`: 3,840 patches, 240 steps of batch 16.

This is half the search's budget, so that 13 settings with five seeds each train in an hour. The recorded run took 57
minutes on a core that other work shared.
"""

from dataclasses import replace

from experiments.a2n_x2_cpu import BASE
from experiments.claims import claims

_BASE = replace(
    BASE,
    train=replace(BASE.train, budget_patches=3_840, ema_horizon_patches=320.0),
    evaluation=replace(BASE.evaluation, every_patches=1_920),
)

EXPERIMENT = claims(_BASE, replicates=4)
