"""Which settings of the full A2N learn fastest at x2? --data names the images: DIV2K's layout or any folder.

320,000 patches are ten thousand steps of batch 32. The authors train for up to two million steps. The budget is enough
to rank what learns fastest, but far from convergence.
"""

from experiments.literature import references
from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from study import Choice, Experiment, Grid, Together, TrialConfig

BASE = TrialConfig(
    model=ModelConfig(),
    data=DataConfig(scale=2, lr_patch_size=64),
    train=TrainConfig(budget_patches=320_000, batch_size=32, learning_rate=1e-3, ema_horizon_patches=16_000.0),
    evaluation=EvaluationConfig(every_patches=16_000, crops=20, lr_crop_size=128),
    seed=1,
)

EXPERIMENT = Experiment(
    question="Which loss, step size, temperature, input range, reduction and training kernel suit the full A2N at x2?",
    base=BASE,
    nuisance={
        "train.loss": Choice("l1", "l2", "charbonnier"),
        Together("train.batch_size", "train.learning_rate"): [
            (16, 1e-4),
            (16, 5e-4),
            (16, 1e-3),
            (32, 5e-4),
            (32, 1e-3),
            (32, 2e-3),
            (64, 1e-3),
            (64, 2e-3),
        ],
        "model.temperature": Grid(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        "model.input_range": Choice(1, 255),
        "model.reduction": Grid(2, 4, 8, 20),
        "data.train_kernel": Choice(
            "matlab_bicubic", "pillow_bicubic", "pillow_lanczos", "pillow_bilinear", "cv2_area"
        ),
    },
    references=references(BASE),
    rungs=(48_000, 144_000),
    reduction_factor=3.0,
    finalists=1,
    replicates=3,
)
