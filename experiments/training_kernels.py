"""Compares training kernels, scored on MATLAB's LR. `study.report` scores them on every kernel's LR."""

from dataclasses import replace

from study import Experiment, TrialConfig

KERNELS = ("pillow_bicubic", "pillow_lanczos", "pillow_bilinear", "cv2_area", "cv2_cubic")
"""Kernels to compare with MATLAB's, which the base uses."""


def training_kernels(base: TrialConfig, *, replicates: int) -> Experiment:
    """Returns the experiment: each kernel with MATLAB's seeds, at the authors' temperature and input range."""
    base = replace(
        base,
        model=replace(base.model, temperature=30.0, input_range=255),
        data=replace(base.data, train_kernel="matlab_bicubic"),
        train=replace(base.train, loss="l1"),
    )
    return Experiment(
        question="What does training LR of another kernel cost on MATLAB's LR?",
        base=base,
        references={kernel: base.with_values({"data.train_kernel": kernel}) for kernel in KERNELS},
        comparisons={"Does another kernel's LR teach less about MATLAB's (the base)?": [(k, "base") for k in KERNELS]},
        scheduler="none",
        replicates=replicates,
    )
