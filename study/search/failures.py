"""When failed trials are not accidental: a pure function of the study's state."""

from study.record.events import Failed
from study.record.state import StudyState


def repeated_failures(state: StudyState, asked: int, *, since: int) -> str:
    """Why the study has to stop: the same bug in two trials, or too many failures in a row. Empty if it may continue.

    Args:
        asked: number of search trials asked for. The limit is max(5, asked / 5) failures in a row.
        since: number of trials that had ended before this session. Their failures do not count.
    """
    ended = [state.trials[number] for number in state.endings[since:]]
    ends = [trial.end for trial in ended if not trial.is_replicate]  # a setting may fail with each of its seeds

    failures_in_a_row = 0
    first_trial_with: dict[str, int] = {}
    for end in ends:
        if not isinstance(end, Failed):
            failures_in_a_row = 0
            continue
        failures_in_a_row += 1
        if end.cause in ("bug", "input"):
            first = first_trial_with.setdefault(_signature(end), end.trial)
            if first != end.trial:
                return f"trials {first} and {end.trial} failed alike: {end.reason}"

    if failures_in_a_row < max(5, asked // 5):
        return ""
    last = ends[-1]
    assert isinstance(last, Failed)
    return f"{failures_in_a_row} trials failed in a row, the last one: {last.reason}"


def _signature(failure: Failed) -> str:
    """Identifies a failure by the kind of exception and the line that raised it."""
    lines = [line.strip() for line in failure.traceback.splitlines() if line.strip().startswith("File ")]
    return f"{failure.reason.partition(':')[0]} {lines[-1]}" if lines else failure.reason
