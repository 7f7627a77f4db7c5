"""The question of `a2n_x2` for one CPU core, with a small A2N. --data names the images. docs/development/results.md
has the answer.

The network has 103,000 parameters, and LR patches have a side of 24. An idle core trains about 110 of them per second.
The full A2N at LR 64 needs 63 times the multiply-adds per patch. The budget of 7,680 patches is that of four
quickstarts. A search of 50 trials with its replicates trained 51 budgets, in 97 minutes of a core that other work
shared. Sub-images are 192 pixels wide, not 480 as in the blog, because no image of T91, BSD200 or the DIV2K crops is
large enough. Steps are eager, so the record can be repeated without a C++ compiler.
"""

from experiments.literature import references
from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from study import Choice, Experiment, Grid, Together, TrialConfig

BASE = TrialConfig(
    # With 24 channels, reductions 2, 4, 8 and 12 give hidden widths of 12, 6, 3 and 2.
    model=ModelConfig(n_feats=24, upsampler_feats=16, n_blocks=4),
    data=DataConfig(scale=2, lr_patch_size=24, subimage_window=192, subimage_step=80),
    train=TrainConfig(
        budget_patches=7_680, batch_size=16, learning_rate=2e-3, ema_horizon_patches=640.0, engine="eager"
    ),
    evaluation=EvaluationConfig(every_patches=960, crops=10, lr_crop_size=96),
    seed=1,
)

EXPERIMENT = Experiment(
    question="Which loss, step size, temperature, input range, reduction and training kernel suit a small A2N at x2?",
    base=BASE,
    nuisance={
        "train.loss": Choice("l1", "l2", "charbonnier"),
        Together("train.batch_size", "train.learning_rate"): [
            (8, 1e-3),
            (8, 2e-3),
            (8, 4e-3),
            (16, 1e-4),  # the blog's smaller pair
            (16, 1e-3),
            (16, 2e-3),
            (16, 4e-3),
            (32, 5e-4),  # the blog's and the authors' pair
            (32, 2e-3),
            (32, 4e-3),
        ],
        "model.temperature": Grid(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        "model.input_range": Choice(1, 255),
        "model.reduction": Grid(2, 4, 8, 12),
        "data.train_kernel": Choice(
            "matlab_bicubic", "pillow_bicubic", "pillow_lanczos", "pillow_bilinear", "cv2_area"
        ),
    },
    references=references(BASE),
    sampler="gp",
    scheduler="asha",  # sampler and scheduler of the quickstart, for the reasons in docs/concepts/search.md
    rungs=(960, 2_880),
    reduction_factor=3.0,
    finalists=1,
    replicates=5,
    benchmarks=("Set5", "Set14"),
)
