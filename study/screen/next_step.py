"""What to type next, for a study as it stands."""

from study.commandline import typed
from study.question.experiment import available
from study.record.events import StudyOpened
from study.record.folder import StudyFolder, default_root
from study.record.state import StudyState


def next_command(folder: StudyFolder, state: StudyState, *, running: bool) -> str | None:
    """The command to type next; None if nothing is recorded yet.

    Args:
        running: whether a live process owns the study.
    """
    if state.opened is None:
        return None
    where = flags_of(folder)
    if running:
        return f"python -m study.ui{where}" if _has_mlflow(folder) else f"python -m study.status{where}"
    if not state.complete and not folder.published:
        return _run(folder, state.opened, _asked(state))
    if state.best() is None:
        return None if folder.published else _run(folder, state.opened, state.counted + 10)
    if folder.report.is_file() or not state.complete:
        return f"python -m study.reproduce best{where}"
    return f"python -m study.report{where}"


def flags_of(folder: StudyFolder) -> str:
    """The flags that lead a command to this study."""
    root = [] if folder.root == default_root() else ["--root", str(folder.root)]
    return typed([*root, "--study-name", folder.study])


def _run(folder: StudyFolder, opened: StudyOpened, trials: int) -> str:
    """The command that goes on with the search. An experiment's file has to be named by its path."""
    experiment = opened.experiment if opened.experiment in available() else f"{opened.experiment}.py"
    data = ["--data", opened.data["folder"]] if opened.data.get("folder") else []
    asked = ["--experiment", experiment, *data, "--seed", str(opened.seed), "--trials", str(trials)]
    return f"python -m study.run{typed(asked)}{flags_of(folder)}"


def _asked(state: StudyState) -> int:
    return state.session.trials if state.session else 50


def _has_mlflow(folder: StudyFolder) -> bool:
    return (folder.root / "mlflow.db").is_file()
