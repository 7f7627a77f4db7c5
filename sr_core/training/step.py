"""One optimiser step, executed by the engine that the runtime selects."""

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
"""A function of the first patch number and a count N. Returns LR (N, 3, H, W) and HR (N, 3, s*H, s*W), uint8.

Tensors may be on the training device. If the source also implements `DrawsOnDevice`, a captured step draws its own
batches.
"""

STEPS_BEFORE_CAPTURE = 3
"""Steps that are executed kernel by kernel before the graph is captured, so that libraries can initialise."""


@dataclass(slots=True)
class TrainState:
    """The complete state of a training run. It may be saved after each event that `fit` yields."""

    model: nn.Module
    optimizer: Adam
    average: WeightAverage
    loss_sum: Tensor
    """The sum of the step losses since the last validation, float64 on the training device. No step waits for it."""
    loss_steps: int = 0
    patches: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"steps": 0.0, "validations": 0.0})
    """Wall time in seconds of the steps and the validations, for information only."""

    @property
    def mean_loss(self) -> float:
        """The mean loss of the steps since the last validation. NaN if there are none. Waits for the device."""
        return self.loss_sum.item() / self.loss_steps if self.loss_steps else float("nan")


def start(model: nn.Module, config: TrainConfig, runtime: Runtime) -> TrainState:
    """Start a training run from the current weights of the model."""
    placed = runtime.place(model).train()
    zero = torch.zeros((), dtype=torch.float64, device=runtime.device)
    optimizer = adam(placed, config, rate_on_device=_numbers_on_device(runtime))
    return TrainState(placed, optimizer, WeightAverage(placed), zero)


def _numbers_on_device(runtime: Runtime) -> bool:
    """True if the learning rate and the share of the average are stored as float32 in the device's memory.

    A captured step needs them there. On a GPU the other engines store them there too, so that all give the same bits.
    """
    return runtime.engine == "graphed" or runtime.device != "cpu"


class Step:
    """Takes one optimiser step on the next batch each time it is called. It belongs to one training state.

    Values that change from step to step (pixels, learning rate, share of the average) are written to fixed addresses on
    the device, where a captured graph reads them. If the pixels are stored on the device, the graph draws its batches
    itself and counts the patches. On CUDA a call does not wait for the device, unless it captures or memory runs out.
    """

    def __init__(self, state: TrainState, config: TrainConfig, runtime: Runtime, batches: Batches) -> None:
        self._state = state
        self._config = config
        self._runtime = runtime
        self._batches = batches
        self._inputs = Inputs(runtime)
        self._network: Callable[[Tensor], Tensor] = state.model
        if runtime.compiled:
            self._network = compiled(state.model)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._steps_alone = 0
        self._warm_for = runtime.micro_batch
        """The micro-batch of the steps before the capture and of the graph."""
        self._side_stream: torch.cuda.Stream | None = None
        self._share: float | Tensor = 1.0
        """The share of the weights after the next step in the average."""
        if _numbers_on_device(runtime):
            self._share = torch.ones((), device=runtime.device)
        self._drawn: DrawsOnDevice | None = None
        """The source from which a captured step draws its batches. None if batches are passed to it."""
        if runtime.engine == "graphed" and isinstance(batches, DrawsOnDevice):
            self._drawn = batches
        self._next = torch.zeros((), dtype=torch.int64, device=runtime.device)
        """The number of the first patch that a captured step draws. The step itself increases it by its batch size."""
        self._next_is: int | None = None
        """The value of `_next` that this process expects on the device. None before the first replay."""
        self.micro_batch = runtime.micro_batch
        """The most patches of a batch that are processed at once. 0 means all."""

    def __call__(self) -> None:
        state = self._state
        config = self._config
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
        """True if the next call replays a captured step, unless memory runs out."""
        return self._graph is not None and self._warm_for == self.micro_batch

    def _batch(self) -> tuple[Tensor, Tensor]:
        """The tensors of the next batch. They are filled here, unless the captured step draws the batch itself."""
        if self._drawn is None or not self.replays:
            lr, hr = self._batches(self._state.patches, self._config.batch_size)
            return self._inputs.fill(lr, hr)
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
        """Replay the captured step.

        The first steps of each micro-batch size run without a graph. The next step is captured.
        """
        if self._warm_for != self.micro_batch:
            # Other sizes use other kernels, and libraries cannot select kernels during a capture.
            self._warm_for = self.micro_batch
            self._steps_alone = 0
            self._graph = None

        def capture() -> None:
            self._graph = self._capture(lr, hr)

        if self._graph is not None:
            self._count_from(self._state.patches - len(lr))
            self._graph.replay()
        elif self._steps_alone < STEPS_BEFORE_CAPTURE:
            with self._side_stream_context():
                self._compute(lr, hr)
                self._state.average.update(self._share)
            self._steps_alone += 1
        else:
            self._fits(len(lr), capture)
            self._replay(lr, hr)  # replays the graph, or warms up again in smaller parts if memory ran out

    def _count_from(self, first: int) -> None:
        """Set the patch number at which a captured step starts that draws its own batches."""
        if self._drawn is None:
            return
        if self._next_is != first:  # at the first replay, or after another state was loaded
            self._next.fill_(first)
        self._next_is = first + self._config.batch_size

    def _capture(self, lr: Tensor, hr: Tensor) -> torch.cuda.CUDAGraph:
        """Capture the step as a graph. Nothing is computed."""
        self._state.optimizer.zero_grad(set_to_none=True)  # the graph then allocates the gradients in its own memory
        graph = torch.cuda.CUDAGraph()
        # If ending the capture fails, torch stays on the stream of the capture. The outer context always switches back.
        stream = torch.cuda.stream(torch.cuda.current_stream())
        with stream, capturable(self._state.optimizer), torch.cuda.graph(graph):
            self._whole(lr, hr)
        return graph

    def _whole(self, lr: Tensor, hr: Tensor) -> None:
        """Take a whole step, from the pixels to the averaged weights, as a graph captures it.

        Args:
            lr, hr: the input tensors of the batch, which are filled here if the step draws its own batches.
        """
        if self._drawn is not None:
            count = self._config.batch_size
            self._inputs.fill(*self._drawn.at(self._next, count))
            self._next += count
        self._accumulate(lr, hr)
        self._state.optimizer.step()
        self._state.average.update(self._share)

    def _compute(self, lr: Tensor, hr: Tensor) -> None:
        """Compute the gradients, in smaller parts each time memory runs out, then update the weights."""

        def gradients() -> None:
            self._state.optimizer.zero_grad(set_to_none=True)
            self._accumulate(lr, hr)

        while not self._fits(len(lr), gradients):
            pass
        self._state.optimizer.step()

    def _fits(self, batch: int, work: Callable[[], None]) -> bool:
        """Do the work and return True. If memory runs out, halve the micro-batch and return False."""
        micro_batch = self.micro_batch or batch
        try:
            work()
            return True
        except Exception as exc:
            if micro_batch == 1 or not is_out_of_memory(exc):
                raise
        # After the handler, because the frames of the exception keep the memory.
        self.micro_batch = (micro_batch + 1) // 2
        torch.cuda.empty_cache()
        logger.warning(
            "out of memory with %d patches at once; from patch %d on, %d at once: same batch, summed gradients",
            micro_batch,
            self._state.patches - batch,
            self.micro_batch,
        )
        return False

    def _accumulate(self, lr: Tensor, hr: Tensor) -> None:
        """Add up the gradients of the batch part by part, then add its loss to the sum.

        If a part fails, the sum is unchanged.
        """
        total = torch.zeros_like(self._state.loss_sum)
        size = self.micro_batch or len(lr)
        for part_lr, part_hr in zip(torch.split(lr, size), torch.split(hr, size), strict=True):
            with self._arithmetic():
                sr = self._network(part_lr)
            loss = pixel_loss(sr, part_hr, self._config)
            if self._config.loss_reduction == "mean" and len(part_lr) < len(lr):
                loss = loss * (len(part_lr) / len(lr))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self._state.loss_sum += total

    def _arithmetic(self) -> AbstractContextManager[Any]:
        """The autocast context of the forward pass."""
        if self._runtime.precision != "bf16":
            return nullcontext()  # TF32 is a process-wide setting (`Runtime.apply`)
        # No cast is cached, because a graph must repeat all casts.
        return torch.autocast(torch.device(self._runtime.device).type, torch.bfloat16, cache_enabled=False)

    @contextmanager
    def _side_stream_context(self) -> Iterator[None]:
        """Run CUDA work on a side stream, which a capture requires of the steps before it."""
        main_stream = torch.cuda.current_stream()
        if self._side_stream is None:  # the same for all steps, because memory that a stream frees is kept for it
            self._side_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._side_stream.wait_stream(main_stream)
        try:
            with torch.cuda.stream(self._side_stream):
                yield
        finally:
            main_stream.wait_stream(self._side_stream)
