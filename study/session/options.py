"""What one session of a study is asked to do, as typed values instead of parsed arguments."""

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """Options of one session. They are no hyperparameters: those belong to the experiment."""

    trials: int = 50
    """Trials of the search in all, references included; trials of earlier sessions count."""
    seed: int | None = None
    """Seed of the study; None takes the experiment's."""
    data: Path | None = None
    """Folder of the images; None takes the photographs in scikit-image's wheel."""
    root: Path | None = None
    """The value of --root, repeated in the commands that are suggested; None if it was not given."""
    timeout: float | None = None
    """Seconds after which the session ends cleanly; None sets no limit."""
    tracking_uri: str | None = None
    """MLflow store or server; None takes the one under the root, "none" logs nothing."""
    storage: str | None = None
    """Optuna storage; None takes the one under the root, "none" writes none."""
    allow_leak: bool = False
    """Continue although training images also occur in a held-out set."""
    take_over: bool = False
    """Take the study from another process that owns it."""
    profile: bool = False
    """Print at the end how the wall time was spent."""

    @classmethod
    def of_search(cls, args: argparse.Namespace) -> "RunOptions":
        """The options of `study.run`, from its parsed arguments."""
        return cls(
            trials=args.trials,
            seed=args.seed,
            data=args.data,
            root=args.root,
            timeout=args.timeout,
            tracking_uri=args.tracking_uri,
            storage=args.storage,
            allow_leak=args.allow_leak,
            take_over=args.take_over,
            profile=args.profile,
        )

    @classmethod
    def of_training(cls, args: argparse.Namespace) -> "RunOptions":
        """The options of `study.train`, from its parsed arguments: one trial, and no Optuna storage."""
        return cls(
            trials=1,
            data=args.data,
            root=args.root,
            timeout=args.timeout,
            tracking_uri=args.tracking_uri,
            storage="none",
            take_over=args.take_over,
            profile=args.profile,
        )
