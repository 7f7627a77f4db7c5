"""The finished study of these data: two finalists with two seeds each, a benchmark, two references, one diverging."""

from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from study.config import TrialConfig
from study.experiment import Experiment
from study.space import Float, Together

BASE = TrialConfig(
    model=ModelConfig(n_feats=4, upsampler_feats=4, n_blocks=1, reduction=2),
    data=DataConfig(scale=2, lr_patch_size=8),
    train=TrainConfig(budget_patches=240, batch_size=4, learning_rate=3e-3, ema_horizon_patches=24.0),
    evaluation=EvaluationConfig(every_patches=60, crops=3, lr_crop_size=24),
    seed=5,
)

EXPERIMENT = Experiment(
    question="Which step size and temperature suit the smallest network?",
    base=BASE,
    nuisance={
        "model.temperature": Float(0.1, 100.0, log=True),
        Together("train.batch_size", "train.learning_rate"): [(2, 1e-3), (2, 1e-2), (4, 3e-3)],
    },
    references={
        "plain": BASE.with_values({"train.loss": "l2", "train.learning_rate": 1e-3}),
        "hasty": BASE.with_values({"train.learning_rate": 1e16}),
    },
    sampler="gp",
    scheduler="asha",
    rungs=(120,),
    finalists=2,
    replicates=2,
    benchmarks=("Tiny",),
)
