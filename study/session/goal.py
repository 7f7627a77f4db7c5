"""The goal of a session: a search, or one longer training. This is all in which the two kinds of session differ."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from sr_core.patches.validation import MAX_BICUBIC_PSNR
from study.commandline import typed
from study.question.experiment import Experiment
from study.record.course import course_of
from study.record.state import StudyState
from study.screen import terminal

if TYPE_CHECKING:
    from study.record.folder import StudyFolder
    from study.session.coordinator import Coordinator
    from study.session.opening import ScannedImages

_MORE_TRIALS = 10
"""Trials that the suggested command adds if only references have been trained."""


class Goal(Protocol):
    """What a session trains, and how it prints the result."""

    def introduction(self) -> list[str]:
        """Lines to print before anything is prepared."""

    def check_images(self, scanned: "ScannedImages", folder: "StudyFolder") -> None:
        """Check that the session may use these images.

        Raises:
            SuiteError: it may not.
        """

    def max_bicubic_psnr(self, experiment: Experiment) -> float | None:
        """The largest bicubic PSNR of a validation crop, for a new record [dB]; None sets no bound."""

    def begin(self, coordinator: "Coordinator", folder: "StudyFolder") -> None:
        """Record what the session has to train, unless that is decided during the session."""

    def result(self, out: terminal.Out, state: StudyState, folder: "StudyFolder") -> list[str]:
        """Print a table of the result, if there is one, and return the sentences that follow it."""

    def failure(self, state: StudyState, folder: "StudyFolder") -> str | None:
        """An error line if the goal cannot be reached any more; else None."""

    def next_command(self, state: StudyState, study_flags: str) -> str:
        """The command to type after the session.

        Args:
            study_flags: the flags that select the study, with a space in front.
        """


class Search:
    """The goal of `study.run`: find the best configuration in an experiment's search space."""

    def introduction(self) -> list[str]:
        """No lines."""
        return []

    def check_images(self, scanned: "ScannedImages", folder: "StudyFolder") -> None:
        """Accept all images: a study on other images is another question, which a session refuses itself."""

    def max_bicubic_psnr(self, experiment: Experiment) -> float | None:
        """The default bound [dB]; a study that replays a published one uses the bound of that study."""
        replay = experiment.replay
        return MAX_BICUBIC_PSNR if replay is None else course_of(replay).max_bicubic_psnr

    def begin(self, coordinator: "Coordinator", folder: "StudyFolder") -> None:
        """Record nothing: the search proposes its trials itself."""

    def result(self, out: terminal.Out, state: StudyState, folder: "StudyFolder") -> list[str]:
        """Print the ranking of trials, and return the summary."""
        out.print(terminal.ranking_table(state))
        return terminal.summary(state)

    def failure(self, state: StudyState, folder: "StudyFolder") -> str | None:
        """None: a failed trial is not a failed search."""
        return None

    def next_command(self, state: StudyState, study_flags: str) -> str:
        """The same command if trials are left, one with more trials if only references ran, or a reproduction."""
        if not state.complete:
            return f"python -m study.run{typed(sys.argv[1:])}"
        if state.best() is None:  # only references have been trained, so the same command would do nothing
            return f"python -m study.run{typed(with_trials(sys.argv[1:], state.counted + _MORE_TRIALS))}"
        return f"python -m study.reproduce best{study_flags}"


def with_trials(arguments: Sequence[str], trials: int) -> list[str]:
    """The same arguments with another number of trials."""
    others = [argument for argument in arguments if not argument.startswith("--trials=")]
    if "--trials" in others:
        index = others.index("--trials")
        del others[index : index + 2]
    return [*others, "--trials", str(trials)]
