"""The default experiment: fifty trials in minutes on two CPU cores, on photographs that pip installed."""

from experiments.literature import references
from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from study import Choice, Experiment, Grid, Together, TrialConfig

BASE = TrialConfig(
    # With 24 channels, the four reductions below give four different hidden widths: 12, 6, 3 and 2.
    model=ModelConfig(n_feats=24, upsampler_feats=16, n_blocks=2, temperature=1.0, input_range=255),
    data=DataConfig(scale=2, lr_patch_size=24),
    train=TrainConfig(budget_patches=1_920, batch_size=16, learning_rate=2e-3, ema_horizon_patches=160.0),
    evaluation=EvaluationConfig(every_patches=480, crops=6, lr_crop_size=96),
    seed=1,
)

EXPERIMENT = Experiment(
    question="Which loss, step size, temperature, reduction and training kernel let a small A2N learn x2 fastest?",
    base=BASE,
    nuisance={
        "train.loss": Choice("l1", "l2", "charbonnier"),
        Together("train.batch_size", "train.learning_rate"): [
            (8, 1e-3),
            (8, 2e-3),
            (16, 1e-4),  # the blog's smaller pair
            (16, 1e-3),
            (16, 2e-3),
            (16, 4e-3),
            (32, 5e-4),  # the blog's and the authors' pair
            (32, 4e-3),
        ],
        "model.temperature": Grid(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        "model.input_range": Choice(1, 255),
        "model.reduction": Grid(2, 4, 8, 10),
        "data.train_kernel": Choice(
            "matlab_bicubic", "pillow_bicubic", "pillow_lanczos", "pillow_bilinear", "pillow_box", "cv2_cubic"
        ),
    },
    references=references(BASE),
    sampler="gp",  # with this scheduler, the best qualifying combination on recorded curves (docs/concepts/search.md)
    scheduler="asha",
    rungs=(960,),
    reduction_factor=3.0,
    finalists=1,
    replicates=3,
)
