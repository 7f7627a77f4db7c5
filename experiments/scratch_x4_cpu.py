"""x4 from scratch (`experiments.from_scratch`) for the small network of `claims_x2_cpu`."""

from experiments.claims_x2_cpu import EXPERIMENT as CLAIMS
from experiments.from_scratch import from_scratch

EXPERIMENT = from_scratch(CLAIMS.base, lr_crop_size=60, replicates=4)
