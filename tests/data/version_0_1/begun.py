"""The study of these data that is not finished: an arm for each loss, proposals by TPE."""

from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from study.config import TrialConfig
from study.experiment import Experiment
from study.space import Choice, Float, Grid

BASE = TrialConfig(
    model=ModelConfig(n_feats=4, upsampler_feats=4, n_blocks=1, reduction=2),
    data=DataConfig(scale=2, lr_patch_size=8),
    train=TrainConfig(budget_patches=240, batch_size=4, learning_rate=3e-3, ema_horizon_patches=24.0),
    evaluation=EvaluationConfig(every_patches=60, crops=3, lr_crop_size=24),
    seed=6,
)

EXPERIMENT = Experiment(
    question="Which loss trains the smallest network faster?",
    base=BASE,
    scientific={"train.loss": Choice("l1", "l2")},
    nuisance={
        "train.learning_rate": Float(1e-4, 1e-2, log=True),
        "model.temperature": Grid(0.3, 3.0, 30.0),
        "data.train_kernel": Choice("matlab_bicubic", "pillow_bicubic"),
    },
    references={"plain": BASE.with_values({"train.loss": "l2", "train.learning_rate": 1e-3})},
    sampler="tpe",
    scheduler="successive_halving",
    rungs=(120,),
    replicates=2,
)
