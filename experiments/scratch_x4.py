"""x4 from scratch (`experiments.from_scratch`) for the full A2N of `claims_x2`. For a GPU."""

from experiments.claims_x2 import EXPERIMENT as CLAIMS
from experiments.from_scratch import from_scratch

EXPERIMENT = from_scratch(CLAIMS.base, lr_crop_size=60, replicates=4)
