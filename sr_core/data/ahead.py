"""The next batch, made while the present one is in use."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class Ahead(Generic[Batch]):
    """Batches of training patches, asked for one after the other; a thread is always one ahead.

    Worth it where whoever asks leaves a core idle meanwhile: a GPU's driver, not a training on the same cores. What
    comes out is what the source gives; only when it is made differs, and an error in the thread is raised here.
    """

    def __init__(self, source: Callable[[int, int], Batch]) -> None:
        self._source = source
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="patches")  # ends with this object
        self._coming: tuple[tuple[int, int], Future[Batch]] | None = None

    def __call__(self, first_k: int, n: int) -> Batch:
        """Patches first_k … first_k + n − 1, as the source gives them."""
        if self._coming is not None and self._coming[0] == (first_k, n):
            batch = self._coming[1].result()
        else:
            batch = self._source(first_k, n)
        following = first_k + n, n
        self._coming = following, self._thread.submit(self._source, *following)
        return batch
