"""Do the patch counts of an experiment fit each other? Everything that does not, at once, and numbers that would do.

Contract 1: trials of every batch size are validated, compared and ended after the same patches, exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sr_core.errors import ConfigError

MIN_STEPS_AT_A_RUNG = 30
"""Optimiser steps of the largest batch before trials are compared for the first time."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Patch counts that a search, or one training, is made of."""

    budget: int
    every: int
    """Between two validations."""
    batch_sizes: Sequence[int]
    rungs: tuple[int, ...] = ()
    halving: bool = False
    """Whether trials are pruned at the rungs."""

    def check(self) -> None:
        """Raises ConfigError that tells all that does not fit, and which numbers would."""
        problems = [*self._uneven(), *self._misplaced()]
        if problems:
            raise ConfigError(f"{'; '.join(problems)}; {self._remedy()}")

    def _uneven(self) -> list[str]:
        unit, sizes = math.lcm(*self.batch_sizes), ", ".join(map(str, self.batch_sizes))
        many = f"{unit}, the least common multiple of every train.batch_size ({sizes})"
        of_batches = many if len(self.batch_sizes) > 1 else f"train.batch_size ({unit})"
        counts = {"evaluation.every_patches": self.every}
        if self.budget % self.every == 0:
            counts["train.budget_patches"] = self.budget
            counts |= {f"rung {number}": rung for number, rung in enumerate(self.rungs, 1)}
        found = [
            f"{name} is {patches} patches: expected a multiple of {of_batches}"
            for name, patches in counts.items()
            if patches % unit
        ]
        if self.budget % self.every:
            found.append(
                f"train.budget_patches is {self.budget} patches: expected a multiple of evaluation.every_patches "
                f"({self.every})"
            )
        return found

    def _misplaced(self) -> list[str]:
        if self.halving and not self.rungs:
            return ['successive halving (also "asha") needs at least one rung; scheduler "none" prunes nothing']
        found = []
        ascending = list(self.rungs) == sorted(set(self.rungs))
        if not ascending or any(not 0 < rung < self.budget or rung % self.every for rung in self.rungs):
            found.append(
                f"rungs must ascend, be multiples of evaluation.every_patches ({self.every}) and lie below the budget "
                f"({self.budget}), got {self.rungs}"
            )
        least = self._least_rung(self.budget)
        if self.rungs and min(self.rungs) < least:
            found.append(
                f"the first rung is {min(self.rungs)} patches: expected at least {least} (1/9 of the budget and "
                f"{MIN_STEPS_AT_A_RUNG} steps of the largest batch, {max(self.batch_sizes)}, references included)"
            )
        return found

    def _least_rung(self, budget: int) -> int:
        return max(math.ceil(budget / 9), MIN_STEPS_AT_A_RUNG * max(self.batch_sizes))

    def _remedy(self) -> str:
        near = self.nearest()
        text = f"these would do: {near.in_words()}"
        if near.rungs and near.budget > self.budget:
            text += f'; or, without pruning, scheduler="none", rungs=(), {self.without_rungs().nearest().in_words()}'
        return text

    def without_rungs(self) -> "Counts":
        """The same for a search that prunes nothing."""
        return Counts(self.budget, self.every, self.batch_sizes)

    def nearest(self) -> "Counts":
        """Counts that fit, none below what was asked for, each as little above as the ones before it allow."""
        every = _up(self.every, math.lcm(*self.batch_sizes))
        budget, rungs = _up(self.budget, every), self.rungs or ((0,) if self.halving else ())
        while True:
            fitting = sorted({_up(max(rung, self._least_rung(budget)), every) for rung in rungs})
            if not fitting or fitting[-1] < budget:
                return Counts(budget, every, self.batch_sizes, tuple(fitting), self.halving)
            budget = fitting[-1] + every  # then a ninth of it is more, too

    def in_words(self) -> str:
        """As an experiment states them."""
        rungs = f", rungs={self.rungs}" if self.rungs else ""
        return f"train.budget_patches={self.budget}, evaluation.every_patches={self.every}{rungs}"


def _up(patches: int, unit: int) -> int:
    """The least multiple of the unit, from one on, that is not below."""
    return max(1, math.ceil(patches / unit)) * unit
