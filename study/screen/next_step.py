"""Chooses the command that a user probably wants to run next, from the state of a study."""

from study.commandline import typed
from study.question.experiment import available
from study.record.events import StudyOpened
from study.record.folder import StudyFolder, default_root
from study.record.state import StudyState


def next_command(folder: StudyFolder, state: StudyState, *, running: bool) -> str | None:
    """Return the command to run next; None if there is nothing to suggest.

    Args:
        running: True if a live process owns the study.
    """
    if state.opened is None:
        return None

    flags = flags_of(folder)
    if running:
        command = "study.ui" if _has_mlflow(folder) else "study.status"
        return f"python -m {command}{flags}"
    if not state.complete and not folder.published:
        return _run(folder, state.opened, _requested_trials(state))
    if state.best() is None:
        return None if folder.published else _run(folder, state.opened, state.counted + 10)
    if folder.report.is_file() or not state.complete:
        return f"python -m study.reproduce best{flags}"
    return f"python -m study.report{flags}"


def flags_of(folder: StudyFolder) -> str:
    """Return the flags that select this study, with a leading space."""
    root = [] if folder.root == default_root() else ["--root", str(folder.root)]
    return typed([*root, "--study-name", folder.study])


def _run(folder: StudyFolder, opened: StudyOpened, trials: int) -> str:
    """Return the command that continues the search. An experiment that is not a built-in one is named by its file."""
    experiment = opened.experiment if opened.experiment in available() else f"{opened.experiment}.py"
    data = ["--data", opened.data["folder"]] if opened.data.get("folder") else []
    arguments = ["--experiment", experiment, *data, "--seed", str(opened.seed), "--trials", str(trials)]
    return f"python -m study.run{typed(arguments)}{flags_of(folder)}"


def _requested_trials(state: StudyState) -> int:
    return state.session.trials if state.session else 50


def _has_mlflow(folder: StudyFolder) -> bool:
    return (folder.root / "mlflow.db").is_file()
