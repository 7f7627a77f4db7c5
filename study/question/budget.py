"""Checks that the patch counts of an experiment fit each other, and proposes counts that do.

Promise 1: trials of every batch size are validated, compared and ended after exactly the same number of patches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sr_core.errors import ConfigError

MIN_STEPS_AT_A_RUNG = 30
"""Optimiser steps of the largest batch before trials are compared for the first time."""


@dataclass(frozen=True, slots=True)
class Counts:
    """The patch counts of a search, or of one training."""

    budget: int
    every: int
    """Patches between two validations."""
    batch_sizes: Sequence[int]
    rungs: tuple[int, ...] = ()
    halving: bool = False
    """True if trials are pruned at the rungs."""

    def check(self) -> None:
        """Check all counts at once.

        Raises:
            ConfigError: some counts do not fit. The message names all of them and gives counts that fit.
        """
        problems = [*self._uneven(), *self._misplaced()]
        if problems:
            raise ConfigError(f"{'; '.join(problems)}; {self._remedy()}")

    def _uneven(self) -> list[str]:
        """One line for each count that is not a multiple of what it consists of."""
        unit = math.lcm(*self.batch_sizes)
        if len(self.batch_sizes) > 1:
            sizes = ", ".join(map(str, self.batch_sizes))
            multiple_of = f"{unit}, the least common multiple of every train.batch_size ({sizes})"
        else:
            multiple_of = f"train.batch_size ({unit})"

        counts = {"evaluation.every_patches": self.every}
        if self.budget % self.every == 0:
            counts["train.budget_patches"] = self.budget
            counts |= {f"rung {number}": rung for number, rung in enumerate(self.rungs, 1)}

        problems = []
        for name, patches in counts.items():
            if patches % unit:
                problems.append(f"{name} is {patches} patches: expected a multiple of {multiple_of}")
        if self.budget % self.every:
            problems.append(
                f"train.budget_patches is {self.budget} patches: expected a multiple of evaluation.every_patches "
                f"({self.every})"
            )
        return problems

    def _misplaced(self) -> list[str]:
        """One line for each rule about rungs that does not hold."""
        if self.halving and not self.rungs:
            return ['successive halving (also "asha") needs at least one rung; scheduler "none" does not prune']
        problems = []
        ascending = list(self.rungs) == sorted(set(self.rungs))
        legal = all(0 < rung < self.budget and rung % self.every == 0 for rung in self.rungs)
        if not ascending or not legal:
            problems.append(
                f"rungs must ascend, be multiples of evaluation.every_patches ({self.every}) and lie below the budget "
                f"({self.budget}), got {self.rungs}"
            )
        least = self._least_rung(self.budget)
        if self.rungs and min(self.rungs) < least:
            problems.append(
                f"the first rung is {min(self.rungs)} patches: expected at least {least} (1/9 of the budget and "
                f"{MIN_STEPS_AT_A_RUNG} steps of the largest batch, {max(self.batch_sizes)}, references included)"
            )
        return problems

    def _least_rung(self, budget: int) -> int:
        return max(math.ceil(budget / 9), MIN_STEPS_AT_A_RUNG * max(self.batch_sizes))

    def _remedy(self) -> str:
        near = self.nearest()
        text = f"the nearest counts that fit are {near.in_words()}"
        if near.rungs and near.budget > self.budget:
            unpruned = self.without_rungs().nearest().in_words()
            text += f'; without pruning, use scheduler="none", rungs=(), {unpruned}'
        return text

    def without_rungs(self) -> "Counts":
        """The same counts for a search without pruning."""
        return Counts(self.budget, self.every, self.batch_sizes)

    def nearest(self) -> "Counts":
        """The nearest counts that fit.

        No count is lower than the one given. Each exceeds it by as little as the counts before it allow.
        """
        every = _round_up(self.every, math.lcm(*self.batch_sizes))
        budget = _round_up(self.budget, every)
        rungs = self.rungs
        if self.halving and not rungs:
            rungs = (0,)
        while True:
            least = self._least_rung(budget)
            fitting = sorted({_round_up(max(rung, least), every) for rung in rungs})
            if not fitting or fitting[-1] < budget:
                return Counts(budget, every, self.batch_sizes, tuple(fitting), self.halving)
            budget = fitting[-1] + every  # this raises the least rung, a ninth of the budget, too

    def in_words(self) -> str:
        """The counts as an experiment states them."""
        rungs = f", rungs={self.rungs}" if self.rungs else ""
        return f"train.budget_patches={self.budget}, evaluation.every_patches={self.every}{rungs}"


def _round_up(patches: int, unit: int) -> int:
    """The smallest positive multiple of the unit that is at least this many patches."""
    return max(1, math.ceil(patches / unit)) * unit
