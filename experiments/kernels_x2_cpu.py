"""The kernels of `experiments.training_kernels` on the small network and budget of `claims_x2_cpu`."""

from experiments.claims_x2_cpu import EXPERIMENT as CLAIMS
from experiments.training_kernels import training_kernels

EXPERIMENT = training_kernels(CLAIMS.base, replicates=4)
