"""One optimiser step, executed as the runtime's engine says."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from sr_core.config import TrainConfig
from sr_core.process.out_of_memory import is_out_of_memory
from sr_core.training.compiled import compiled
from sr_core.training.inputs import DrawsOnDevice, Inputs, UInt8Pixels
from sr_core.training.loss import pixel_loss
from sr_core.training.optim import WeightAverage, adam, averaging_weight, capturable, learning_rate
from sr_core.training.runtime import Runtime

logger = logging.getLogger(__name__)

Batches = Callable[[int, int], tuple[UInt8Pixels, UInt8Pixels]]
"""(first patch, count) -> LR (N, 3, H, W) and HR (N, 3, sH, sW), uint8; tensors may be on the training device.

If it is `DrawsOnDevice` as well, a captured step draws its own batches.
"""

STEPS_BEFORE_CAPTURE = 3
"""Steps that are executed kernel by kernel before the graph is captured, for libraries to set themselves up."""


@dataclass(slots=True)
class TrainState:
    """Everything that a training run is made of. Its holder may checkpoint it whenever fit() has yielded."""

    model: nn.Module
    optimizer: Adam
    average: WeightAverage
    loss_sum: Tensor
    """Sum of the step losses since the last validation, float64 on the training device: no step waits for it."""
    loss_steps: int = 0
    patches: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"steps": 0.0, "validations": 0.0})
    """Wall time by what it went into; for people, no part of the result."""

    @property
    def mean_loss(self) -> float:
        return self.loss_sum.item() / self.loss_steps if self.loss_steps else float("nan")


def start(model: nn.Module, config: TrainConfig, runtime: Runtime) -> TrainState:
    """A run at its beginning, from the model's present weights."""
    placed = runtime.place(model).train()
    zero = torch.zeros((), dtype=torch.float64, device=runtime.device)
    optimizer = adam(placed, config, rate_on_device=_numbers_on_device(runtime))
    return TrainState(placed, optimizer, WeightAverage(placed), zero)


def _numbers_on_device(runtime: Runtime) -> bool:
    """Whether learning rate and share of the average lie in the device's memory, as float32.

    A captured step needs them there. On a GPU the other engines have them there too, for the same bits.
    """
    return runtime.engine == "graphed" or runtime.device != "cpu"


class Step:
    """Takes one optimiser step on the next batch whenever it is called. Belongs to one state.

    What changes from step to step (pixels, learning rate, weight of the average) goes to fixed places on the device,
    so that a captured graph reads it there. Pixels that live on the device are drawn by the graph itself, which then
    counts the patches. On CUDA no call waits for the device, except where it captures and where memory runs out.
    """

    def __init__(self, state: TrainState, config: TrainConfig, runtime: Runtime, batches: Batches) -> None:
        self._state, self._config, self._runtime, self._batches = state, config, runtime, batches
        self._inputs = Inputs(runtime)
        self._network: Callable[[Tensor], Tensor] = state.model
        if runtime.compiled:
            self._network = compiled(state.model)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._steps_alone = 0
        self._warm_for = runtime.micro_batch
        """The micro-batch of the steps alone and of the graph."""
        self._side_stream: torch.cuda.Stream | None = None
        self._share: float | Tensor = 1.0
        """Of the average, what the weights after the next step get."""
        if _numbers_on_device(runtime):
            self._share = torch.ones((), device=runtime.device)
        self._drawn = batches if runtime.engine == "graphed" and isinstance(batches, DrawsOnDevice) else None
        """What a captured step draws its batches from; None if they come from outside of it."""
        self._next = torch.zeros((), dtype=torch.int64, device=runtime.device)
        """Number of the first patch that a captured step draws; the step itself adds its batch."""
        self._next_is: int | None = None
        """What `_next` holds, as far as this process has told the device; None: not told yet."""
        self.micro_batch = runtime.micro_batch
        """The most patches that go through the network at once, 0 for all."""

    def __call__(self) -> None:
        state, config = self._state, self._config
        lr, hr = self._batch()
        self._set_learning_rate(learning_rate(config, state.patches))
        state.patches += config.batch_size
        self._set_share(averaging_weight(config, state.patches // config.batch_size))
        if self._runtime.engine == "graphed":
            self._replay(lr, hr)
        else:
            self._compute(lr, hr)
            state.average.update(self._share)
        state.loss_steps += 1

    @property
    def replays(self) -> bool:
        """Whether the next call replays a captured step, unless memory runs out."""
        return self._graph is not None and self._warm_for == self.micro_batch

    def _batch(self) -> tuple[Tensor, Tensor]:
        """The next batch at its place on the device, or the place alone, if the captured step draws it there."""
        first, count = self._state.patches, self._config.batch_size
        if self._drawn is None or not self.replays:
            return self._inputs.fill(*self._batches(first, count))
        return self._inputs.places

    def _set_learning_rate(self, rate: float) -> None:
        for group in self._state.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _set_share(self, share: float) -> None:
        if isinstance(self._share, Tensor):
            self._share.fill_(share)
        else:
            self._share = share

    def _replay(self, lr: Tensor, hr: Tensor) -> None:
        """The whole step as one graph, once the first steps with parts of this size have been taken without."""
        if self._warm_for != self.micro_batch:  # other sizes take other kernels, which cannot be chosen in a capture
            self._warm_for, self._steps_alone, self._graph = self.micro_batch, 0, None

        def capture() -> None:
            self._graph = self._capture(lr, hr)

        if self._graph is not None:
            self._count_from(self._state.patches - len(lr))
            self._graph.replay()
        elif self._steps_alone < STEPS_BEFORE_CAPTURE:
            with self._beside():
                self._compute(lr, hr)
                self._state.average.update(self._share)
            self._steps_alone += 1
        else:
            self._fits(len(lr), capture)
            self._replay(lr, hr)  # with the graph, or alone again and in smaller parts

    def _count_from(self, first: int) -> None:
        """Lets the captured step, if it draws its batches, start at this patch; it leaves the number of the next."""
        if self._drawn is None:
            return
        if self._next_is != first:  # at the first replay, and if another state has been loaded since the last one
            self._next.fill_(first)
        self._next_is = first + self._config.batch_size

    def _capture(self, lr: Tensor, hr: Tensor) -> torch.cuda.CUDAGraph:
        """Records the step; computes nothing."""
        self._state.optimizer.zero_grad(set_to_none=True)  # gradients then live in the graph's own memory
        graph = torch.cuda.CUDAGraph()
        # Where the capture's own end fails, torch would stay on its stream: the outer context goes back in any case.
        stream = torch.cuda.stream(torch.cuda.current_stream())
        with stream, capturable(self._state.optimizer), torch.cuda.graph(graph):
            self._whole(lr, hr)
        return graph

    def _whole(self, lr: Tensor, hr: Tensor) -> None:
        """A step from its patches to the averaged weights, as a graph records it.

        Args:
            lr, hr: the places of the batch; filled here if the batches are drawn on the device.
        """
        if self._drawn is not None:
            count = self._config.batch_size
            self._inputs.fill(*self._drawn.at(self._next, count))
            self._next += count
        self._accumulate(lr, hr)
        self._state.optimizer.step()
        self._state.average.update(self._share)

    def _compute(self, lr: Tensor, hr: Tensor) -> None:
        def gradients() -> None:
            self._state.optimizer.zero_grad(set_to_none=True)
            self._accumulate(lr, hr)

        while not self._fits(len(lr), gradients):
            pass
        self._state.optimizer.step()

    def _fits(self, batch: int, work: Callable[[], None]) -> bool:
        """Does it; False where memory ran out, and half as many patches of the batch at once are to be tried next."""
        together = self.micro_batch or batch
        try:
            work()
            return True
        except Exception as exc:
            if together == 1 or not is_out_of_memory(exc):
                raise
        # Outside of the handler: the exception holds the frames that hold the memory.
        self.micro_batch = (together + 1) // 2
        torch.cuda.empty_cache()
        logger.warning(
            "out of memory with %d patches at once; from patch %d on %d at once, gradients summed: the same batch",
            together,
            self._state.patches - batch,
            self.micro_batch,
        )
        return False

    def _accumulate(self, lr: Tensor, hr: Tensor) -> None:
        """Adds the batch's gradients, part by part, then its loss to the sum, which a failure leaves as it is."""
        total = torch.zeros_like(self._state.loss_sum)
        size = self.micro_batch or len(lr)
        for some_lr, some_hr in zip(torch.split(lr, size), torch.split(hr, size), strict=True):
            with self._arithmetic():
                sr = self._network(some_lr)
            loss = pixel_loss(sr, some_hr, self._config)
            if self._config.loss_reduction == "mean" and len(some_lr) < len(lr):
                loss = loss * (len(some_lr) / len(lr))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self._state.loss_sum += total

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if self._runtime.precision != "bf16":
            return nullcontext()  # TF32 is a setting of the process (`Runtime.apply`)
        # Casts must be made anew within a graph, so none is kept.
        return torch.autocast(torch.device(self._runtime.device).type, torch.bfloat16, cache_enabled=False)

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """CUDA work goes to a stream of its own meanwhile, as a capture asks of the steps before it."""
        present = torch.cuda.current_stream()
        if self._side_stream is None:  # one for all steps: memory that a stream has freed is kept for that stream
            self._side_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._side_stream.wait_stream(present)
        try:
            with torch.cuda.stream(self._side_stream):
                yield
        finally:
            present.wait_stream(self._side_stream)
