"""Another study's course, to be run again: which configurations it tried, and where it pruned them.

With several slots the order in which trials end varies from run to run, and so do the proposals drawn from it. A study
that replays another one's journal trains the same trials to the same counts under the same settings, whatever the
order, so that two runs can be compared bit by bit.
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
    """What was decided in a study."""

    configs: Mapping[int, TrialConfig]
    """By trial number, references left out."""
    pruned_at: Mapping[int, int]
    """Patches at which a trial was pruned."""
    runtime: Mapping[str, Any]
    """The settings that decide bits."""
    format: int
    """Of the journal, which says what its settings leave out."""
    max_bicubic_psnr: float | None
    """The bound for validation crops, so that scores can be compared; None if the study recorded none."""

    def point(self, number: int, space: Space, base: TrialConfig) -> dict[str, Any] | None:
        """Where in the space that trial stands; None where the other study had come to its end.

        Raises:
            SuiteError: it stands outside.
        """
        if number not in self.configs:
            return None
        point = space.locate(self.configs[number].dotted(), base.dotted())
        if point is None:
            raise SuiteError(f"replay: trial {number} lies outside this experiment's space; give it the other's")
        return point

    def digest(self) -> str:
        """16 hex digits, equal where all decisions are."""
        configs = [(number, config.recorded()) for number, config in sorted(self.configs.items())]
        return short_digest([configs, sorted(self.pruned_at.items())])


@cache
def course_of(journal: Path) -> RecordedCourse:
    """The course that a journal records.

    Raises:
        SuiteError: there is no such journal, or it is damaged.
    """
    if not journal.is_file():
        raise SuiteError(f"replay of {journal}: no such journal")
    configs: dict[int, TrialConfig] = {}
    pruned_at: dict[int, int] = {}
    runtime: Mapping[str, Any] = {}
    format = FORMAT
    bound: float | None = None
    for event in read(journal):
        if isinstance(event, StudyOpened):
            runtime, format = event.runtime, event.format
            bound = max_bicubic_psnr(event)
        elif isinstance(event, Proposed) and event.role == "search":
            configs[event.trial] = TrialConfig.from_json(event.config)
        elif isinstance(event, Pruned):
            pruned_at[event.trial] = event.patches
    return RecordedCourse(configs, pruned_at, runtime, format, bound)


def described(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain values, with the digest of the course that it replays, if it replays one.

    Raises:
        SuiteError: there is no such journal, or it is damaged.
    """
    values = experiment.describe()
    if experiment.replay is not None:
        values["search"] = {**values["search"], "replay": course_of(experiment.replay).digest()}
    return values
