"""The question of `a2n_x2` on images without a window of 480 pixels: T91, BSD200, crops of DIV2K.

The blog's sub-images are 192 pixels wide here, at a step of 80. docs/development/results.md has the command for a GPU.
"""

from dataclasses import replace

from experiments import a2n_x2
from experiments.literature import references

BASE = replace(a2n_x2.BASE, data=replace(a2n_x2.BASE.data, subimage_window=192, subimage_step=80))

EXPERIMENT = replace(a2n_x2.EXPERIMENT, base=BASE, references=references(BASE), benchmarks=("Set5", "Set14"))
