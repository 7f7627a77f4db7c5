"""The course of another study that is replayed: which configurations it tried, and where it pruned them.

With several slots, the order in which trials end varies between runs. The proposals depend on that order. A study that
replays another study's journal trains the same trials to the same patch counts under the same settings, in any order.
Two runs can then be compared bit by bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sr_core.errors import SuiteError
from study.question.config import TrialConfig, short_digest
from study.question.experiment import Experiment
from study.question.space import Space
from study.record.events import FORMAT, Proposed, Pruned, StudyOpened, max_bicubic_psnr
from study.record.journal import read


@dataclass(frozen=True, slots=True)
class RecordedCourse:
    """The decisions of a study."""

    configs: Mapping[int, TrialConfig]
    """Configuration of each search trial by its number."""
    pruned_at: Mapping[int, int]
    """Patches at which a trial was pruned, by trial number."""
    runtime: Mapping[str, Any]
    """The settings that affect bits."""
    format: int
    """Format of the journal. It determines which settings an older journal leaves out."""
    max_bicubic_psnr: float | None
    """The bound for validation crops in dB, which makes scores comparable. None if the study has no bound."""

    def point(self, number: int, space: Space, base: TrialConfig) -> dict[str, Any] | None:
        """The point of a trial in the space, or None if the replayed study has no such trial.

        Raises:
            SuiteError: the trial lies outside the space.
        """
        if number not in self.configs:
            return None
        point = space.locate(self.configs[number].dotted(), base.dotted())
        if point is None:
            raise SuiteError(
                f"replay: trial {number} lies outside this experiment's space; use the space of the replayed study"
            )
        return point

    def digest(self) -> str:
        """16 hex digits, equal if all decisions are equal."""
        configs = [(number, config.recorded()) for number, config in sorted(self.configs.items())]
        return short_digest([configs, sorted(self.pruned_at.items())])


@cache
def course_of(journal: Path) -> RecordedCourse:
    """The course that a journal records.

    Raises:
        SuiteError: there is no such journal, or it is damaged.
    """
    if not journal.is_file():
        raise SuiteError(f"replay: there is no journal {journal}; check the path in the experiment")
    configs: dict[int, TrialConfig] = {}
    pruned_at: dict[int, int] = {}
    runtime: Mapping[str, Any] = {}
    format = FORMAT
    bound: float | None = None
    for event in read(journal):
        if isinstance(event, StudyOpened):
            runtime = event.runtime
            format = event.format
            bound = max_bicubic_psnr(event)
        elif isinstance(event, Proposed) and event.role == "search":
            configs[event.trial] = TrialConfig.from_json(event.config)
        elif isinstance(event, Pruned):
            pruned_at[event.trial] = event.patches
    return RecordedCourse(configs, pruned_at, runtime, format, bound)


def described(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain values. If it replays a course, they include the digest of that course.

    Raises:
        SuiteError: there is no such journal, or it is damaged.
    """
    values = experiment.describe()
    if experiment.replay is not None:
        values["search"] = {**values["search"], "replay": course_of(experiment.replay).digest()}
    return values
