"""Recorded forwards and the launch throttle without a GPU: a fake takes the recordings."""

from collections.abc import Callable

import pytest
import torch

from app.engine.kernels.cuda import MAX_STEPS_AHEAD, GraphedForward, LaunchThrottle, Recording, upload

CPU = torch.device("cpu")


class Recorder:
    """Records as a GPU does: what runs at replay reads and writes the memory that it was recorded on.

    Attributes:
        shapes: Of what was recorded.
        replays: How many there were.
        error: Raised instead.
    """

    def __init__(self, error: RuntimeError | None = None) -> None:
        self.num_recordings = 0
        self.replays = 0
        self.error = error

    def __call__(self, run: Callable[[], torch.Tensor]) -> Recording:
        if self.error is not None:
            raise self.error
        self.num_recordings += 1
        output = run()

        def replay() -> None:
            self.replays += 1
            output.copy_(run())

        return Recording(replay, output)


def forward(*inputs: torch.Tensor) -> torch.Tensor:
    samples, factors = inputs
    return samples * factors[:, None]


def inputs(rows: int, factor: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(3.0 * rows).reshape(rows, 3), torch.full((rows,), factor)


def test_a_forward_is_recorded_once_and_then_replayed_on_the_values_of_each_call() -> None:
    recorder = Recorder()
    graphed = GraphedForward(forward, recorder)

    for call, factor in enumerate([1.0, 2.0, -3.0], start=1):
        assert torch.equal(graphed(*inputs(2, factor)), forward(*inputs(2, factor)))
        assert (recorder.num_recordings, recorder.replays) == (1, call)


def test_a_result_stays_when_the_next_one_is_made() -> None:
    graphed = GraphedForward(forward, Recorder())
    first = graphed(*inputs(2, 1.0))
    graphed(*inputs(2, 5.0))
    assert torch.equal(first, forward(*inputs(2, 1.0)))


def test_the_callers_tensors_are_not_written_to() -> None:
    graphed = GraphedForward(forward, Recorder())
    mine = inputs(2, 1.0)
    graphed(*mine)
    graphed(*inputs(2, 5.0))
    assert torch.equal(mine[1], inputs(2, 1.0)[1])


def test_the_recordings_that_were_not_used_the_longest_are_forgotten() -> None:
    recorder = Recorder()
    graphed = GraphedForward(forward, recorder, max_graphs=2)
    for rows in (2, 4, 2, 8):  # evicts 4
        graphed(*inputs(rows, 1.0))
    assert recorder.num_recordings == 3
    graphed(*inputs(2, 1.0))
    assert recorder.num_recordings == 3
    graphed(*inputs(4, 1.0))
    assert recorder.num_recordings == 4


def test_where_recording_fails_the_forward_runs_as_it_is() -> None:
    recorder = Recorder(RuntimeError("an operation that cannot be recorded"))
    graphed = GraphedForward(forward, recorder)
    assert torch.equal(graphed(*inputs(2, 2.0)), forward(*inputs(2, 2.0)))
    recorder.error = None
    graphed(*inputs(2, 2.0))
    assert recorder.num_recordings == 0, "it is not tried again"


def test_running_out_of_memory_is_the_callers_to_know_and_may_be_tried_again() -> None:
    recorder = Recorder(torch.OutOfMemoryError())
    graphed = GraphedForward(forward, recorder)
    with pytest.raises(torch.OutOfMemoryError):
        graphed(*inputs(2, 2.0))
    recorder.error = None
    assert torch.equal(graphed(*inputs(2, 2.0)), forward(*inputs(2, 2.0)))
    assert recorder.num_recordings == 1


def test_the_host_waits_for_the_step_before_the_one_it_launched() -> None:
    marked: list[int] = []
    waited: list[int] = []

    def mark() -> Callable[[], None]:
        step = len(marked)
        marked.append(step)
        return lambda: waited.append(step)

    throttle = LaunchThrottle(mark)
    for step in range(4):
        throttle.step_launched()
        assert waited == list(range(step + 1 - MAX_STEPS_AHEAD))
        assert marked == list(range(step + 1))


def test_on_the_cpu_there_is_nothing_to_upload() -> None:
    values = torch.ones(3)
    assert upload(values, CPU) is values
