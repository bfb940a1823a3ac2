"""What a GPU needs and a CPU does not: recorded forwards, uploads that nobody waits for, and a host that stays close.

Knows nothing of images, rows or noise schedulers. Used by the device thread; while models load, by the loader thread
for the model it loads.
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

logger = logging.getLogger(__name__)

# The row buckets of the native size, and of one more size; each further recording takes its outputs' memory and time.
MAX_GRAPHS = 16

# Kernels are chosen and workspaces allocated in the first runs, which a recording must not see.
RUNS_BEFORE_RECORDING = 2

# The host prepares one step while the device takes another. More would let newcomers wait for steps that are launched.
MAX_STEPS_AHEAD = 1


class Forward(Protocol):
    """A model's forward: tensors in, one tensor out, the same operations whatever the values."""

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run it."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A forward that can be repeated on the same memory.

    Attributes:
        replay: Does it again.
        output: Where its result then is; the next replay of any recording may overwrite it.
    """

    replay: Callable[[], None]
    output: torch.Tensor


class Recorder(Protocol):
    """Records a forward."""

    def __call__(self, run: Callable[[], torch.Tensor]) -> Recording:
        """Run it as often as it takes, and say how to repeat it."""


class CudaRecorder:
    """Records forwards as CUDA graphs that share one pool of memory: only one of them runs at a time."""

    def __init__(self, device: torch.device) -> None:
        """Reserve nothing yet.

        Args:
            device: A CUDA device.
        """
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], torch.Tensor]) -> Recording:
        """Run a forward a few times, then record it.

        Source:
            "CUDA semantics", CUDA graphs, of PyTorch's documentation.
        """
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(RUNS_BEFORE_RECORDING):
                    run()
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # thread_local: the loader may be copying another model to the device meanwhile.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                output = run()
        return Recording(graph.replay, output)


class GraphedForward:
    """A forward that is recorded for each combination of shapes and then replayed; the same numbers, fewer launches.

    The recordings that were not used the longest are forgotten. Where recording fails, the forward runs as it is.
    """

    def __init__(
        self,
        forward: Forward,
        record: Recorder,
        max_graphs: int = MAX_GRAPHS,
    ) -> None:
        """Record nothing yet.

        Args:
            forward: What to record.
            record: `CudaRecorder`, or what a test takes for it.
            max_graphs: Recordings kept, >= 1.
        """
        self._forward = forward
        self._record: Recorder | None = record
        self._max_graphs = max_graphs
        self._graphs: OrderedDict[tuple[torch.Size, ...], tuple[tuple[torch.Tensor, ...], Recording]] = OrderedDict()

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run the forward; the result is the caller's own.

        Raises:
            torch.OutOfMemoryError: The recording or the forward does not fit.
        """
        shapes = tuple(tensor.shape for tensor in inputs)
        if shapes not in self._graphs and not self._add(shapes, inputs):
            return self._forward(*inputs)
        self._graphs.move_to_end(shapes)
        places, recording = self._graphs[shapes]
        for place, tensor in zip(places, inputs, strict=True):
            place.copy_(tensor)
        recording.replay()
        return recording.output.clone()

    def _add(self, shapes: tuple[torch.Size, ...], inputs: tuple[torch.Tensor, ...]) -> bool:
        """Record the forward of these shapes on copies of the inputs; False where that is not possible."""
        if self._record is None:
            return False
        places = tuple(tensor.clone() for tensor in inputs)
        try:
            recording = self._record(lambda: self._forward(*places))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            logger.warning("Forwards cannot be recorded on this device; they run one by one.", exc_info=True)
            self._record = None
            return False
        self._graphs[shapes] = (places, recording)
        if len(self._graphs) > self._max_graphs:
            self._graphs.popitem(last=False)
        return True


class Pace:
    """Keeps the host at most `MAX_STEPS_AHEAD` steps ahead of the device.

    Nothing in a step waits for the device, so a host could launch all steps of an image at once: then nobody could
    join or leave, and a step's time would be that of its launch.
    """

    def __init__(self, mark: Callable[[], Callable[[], None]]) -> None:
        """Begin before the first step.

        Args:
            mark: Marks the end of all that was launched so far, and returns how to wait for it; `cuda_mark`, or what
                a test takes for it.
        """
        self._mark = mark
        self._under_way: deque[Callable[[], None]] = deque()

    def step_launched(self) -> None:
        """Wait for the step before the one that was just launched."""
        self._under_way.append(self._mark())
        if len(self._under_way) > MAX_STEPS_AHEAD:
            self._under_way.popleft()()


def cuda_mark(device: torch.device) -> Callable[[], None]:
    """Mark the end of what was launched on the device, and return how to wait for it, asleep."""
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    wait: Callable[[], None] = event.synchronize
    return wait


def upload(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a small tensor of the host to the device, in the order of the device's work, without waiting for it.

    From pinned memory, which torch keeps until the copy is done. On the CPU the tensor itself.
    """
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
