"""When failed trials are no accident: a pure function of the study's state."""

from study.record.events import Failed
from study.record.state import StudyState


def repeated_failures(state: StudyState, asked: int, *, since: int) -> str:
    """Why the study has to stop, empty if it need not: too many failures in a row, or one bug in two trials.

    Args:
        asked: search trials asked for; max(5, asked / 5) failures in a row are too many.
        since: how many trials had ended before this session; those are not held against it.
    """
    ended = [state.trials[number] for number in state.endings[since:]]
    ends = [trial.end for trial in ended if not trial.is_replicate]  # a setting may fail with each of its seeds
    in_a_row = 0
    first_with: dict[str, int] = {}
    for end in ends:
        in_a_row = in_a_row + 1 if isinstance(end, Failed) else 0
        if isinstance(end, Failed) and end.cause in ("bug", "input"):
            first = first_with.setdefault(_signature(end), end.trial)
            if first != end.trial:
                return f"trials {first} and {end.trial} failed alike: {end.reason}"
    if in_a_row < max(5, asked // 5):
        return ""
    last = ends[-1]
    assert isinstance(last, Failed)
    return f"{in_a_row} trials failed in a row, the last one: {last.reason}"


def _signature(failure: Failed) -> str:
    """What makes two failures the same one: the kind of exception and the line that raised it."""
    lines = [line.strip() for line in failure.traceback.splitlines() if line.strip().startswith("File ")]
    return f"{failure.reason.partition(':')[0]} {lines[-1]}" if lines else failure.reason
