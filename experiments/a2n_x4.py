"""The question of `a2n_x2` at x4. The tail of the network upsamples twice at this scale."""

from dataclasses import replace

from experiments import a2n_x2
from experiments.literature import references
from sr_core.config import DataConfig

BASE = replace(
    a2n_x2.BASE,
    data=DataConfig(scale=4, lr_patch_size=64),
    evaluation=replace(a2n_x2.BASE.evaluation, lr_crop_size=96),
)

EXPERIMENT = replace(
    a2n_x2.EXPERIMENT,
    question="Which loss, step size, temperature, input range, reduction and training kernel suit the full A2N at x4?",
    base=BASE,
    references=references(BASE),
)
