"""The kernels of `experiments.training_kernels` on the full A2N at x2: 128,000 patches. For a GPU."""

from experiments.claims_x2 import EXPERIMENT as CLAIMS
from experiments.training_kernels import training_kernels

EXPERIMENT = training_kernels(CLAIMS.base, replicates=4)
