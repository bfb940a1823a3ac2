"""GPU support: recorded forwards (CUDA graphs), asynchronous uploads, and a limit on steps launched ahead.

Handles no images, rows or noise schedulers. Used by the device thread; while models load, also by the loader thread for
the model that it loads.
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

logger = logging.getLogger(__name__)

# Enough for the row buckets of two sizes; each recording takes memory for its outputs, and time.
MAX_GRAPHS = 16

# Kernels are selected and workspaces allocated in the first runs, which must not be part of a recording.
RUNS_BEFORE_RECORDING = 2

# The host prepares one step while the device runs another. With more, a new request would wait for launched steps.
MAX_STEPS_AHEAD = 1


class Forward(Protocol):
    """A model's forward: tensors in, one tensor out; its operations do not depend on the values."""

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run it."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A forward that can be replayed on the same memory.

    Attributes:
        replay: Runs the forward again.
        output: The result of the last replay; the next replay of any recording may overwrite it.
    """

    replay: Callable[[], None]
    output: torch.Tensor


class Recorder(Protocol):
    """Records a forward."""

    def __call__(self, run: Callable[[], torch.Tensor]) -> Recording:
        """Run the forward at least once, and return its recording."""


class CudaRecorder:
    """Records forwards as CUDA graphs that share one memory pool, because only one of them runs at a time."""

    def __init__(self, device: torch.device) -> None:
        """Create the stream and the memory pool; allocates no memory yet.

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
            # thread_local: the loader thread may copy another model to the device at the same time.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                output = run()
        return Recording(graph.replay, output)


class GraphedForward:
    """A forward that is recorded once for each combination of shapes and then replayed: same results, fewer launches.

    The least recently used recordings are dropped. Where recording fails, the forward runs without.
    """

    def __init__(
        self,
        forward: Forward,
        record: Recorder,
        max_graphs: int = MAX_GRAPHS,
    ) -> None:
        """Record nothing yet.

        Args:
            forward: The forward to record.
            record: `CudaRecorder`, or a fake of it in tests.
            max_graphs: Recordings kept, >= 1.
        """
        self._forward = forward
        self._record: Recorder | None = record
        self._max_graphs = max_graphs
        self._graphs: OrderedDict[tuple[torch.Size, ...], tuple[tuple[torch.Tensor, ...], Recording]] = OrderedDict()

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run the forward; the result is a new tensor.

        Raises:
            torch.OutOfMemoryError: The recording or the forward does not fit into memory.
        """
        shapes = tuple(tensor.shape for tensor in inputs)
        if shapes not in self._graphs and not self._add(shapes, inputs):
            return self._forward(*inputs)
        self._graphs.move_to_end(shapes)
        buffers, recording = self._graphs[shapes]
        for buffer, tensor in zip(buffers, inputs, strict=True):
            buffer.copy_(tensor)
        recording.replay()
        return recording.output.clone()

    def _add(self, shapes: tuple[torch.Size, ...], inputs: tuple[torch.Tensor, ...]) -> bool:
        """Record the forward of these shapes on copies of the inputs; return False where recording fails."""
        if self._record is None:
            return False
        buffers = tuple(tensor.clone() for tensor in inputs)
        try:
            recording = self._record(lambda: self._forward(*buffers))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            logger.warning("Forwards cannot be recorded on this device; they run without recording.", exc_info=True)
            self._record = None
            return False
        self._graphs[shapes] = (buffers, recording)
        if len(self._graphs) > self._max_graphs:
            self._graphs.popitem(last=False)
        return True


class LaunchThrottle:
    """Keeps the host at most `MAX_STEPS_AHEAD` steps ahead of the device.

    Nothing else in a step waits for the device, so the host could launch all steps of an image at once: then no request
    could join or leave between steps, and the measured time of a step would be that of its launch.
    """

    def __init__(self, mark: Callable[[], Callable[[], None]]) -> None:
        """Start with no step launched.

        Args:
            mark: Marks the end of the work launched so far, and returns a function that waits for it; `cuda_mark`, or
                a fake of it in tests.
        """
        self._mark = mark
        self._launched: deque[Callable[[], None]] = deque()

    def step_launched(self) -> None:
        """Block until at most `MAX_STEPS_AHEAD` launched steps are unfinished."""
        self._launched.append(self._mark())
        if len(self._launched) > MAX_STEPS_AHEAD:
            self._launched.popleft()()


def cuda_mark(device: torch.device) -> Callable[[], None]:
    """Mark the end of the work launched on the device, and return a function that waits for it without spinning."""
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    wait: Callable[[], None] = event.synchronize
    return wait


def upload(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a small tensor from the host to the device, in stream order, without waiting for the copy.

    Copies from pinned memory, which torch keeps until the copy is done. On the CPU returns the tensor itself.
    """
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
