"""The claims of `experiments.claims` on the full A2N at x2: 128,000 patches, 8,000 steps of batch 16. For a GPU."""

from dataclasses import replace

from experiments.a2n_x2_small_pictures import BASE
from experiments.claims import claims

_BASE = replace(BASE, train=replace(BASE.train, budget_patches=128_000, batch_size=16, ema_horizon_patches=8_000.0))

EXPERIMENT = claims(_BASE, replicates=4)
