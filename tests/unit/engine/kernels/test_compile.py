"""When a compiled forward is used and when the plain one, without a compiler."""

import pytest
import torch

from app.engine.kernels.compile import CompiledForward
from app.engine.kernels.cuda import Forward


class Compiler:
    """Counts what runs compiled, which adds a thousandth so that the result differs.

    Attributes:
        shapes: Of the first input of each compiled run.
        error: Raised instead.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.error = error

    def __call__(self, forward: Forward) -> Forward:
        def compiled(*inputs: torch.Tensor) -> torch.Tensor:
            self.shapes.append(tuple(inputs[0].shape))
            if self.error is not None:
                raise self.error
            return forward(*inputs) + 0.001

        return compiled


def double(*inputs: torch.Tensor) -> torch.Tensor:
    return 2 * inputs[0]


def test_the_size_it_was_made_for_runs_compiled_with_any_number_of_rows_and_others_do_not() -> None:
    compiler = Compiler()
    forward = CompiledForward(double, compiler, side=8)

    for shape in ((1, 4, 8, 8), (6, 4, 8, 8), (2, 4, 8, 16), (2, 4, 16, 16)):
        samples = torch.ones(shape)
        is_native = shape[2:] == (8, 8)
        assert torch.equal(forward(samples), double(samples) + (0.001 if is_native else 0))

    assert compiler.shapes == [(1, 4, 8, 8), (6, 4, 8, 8)]


def test_where_compiling_fails_it_is_tried_once(caplog: pytest.LogCaptureFixture) -> None:
    compiler = Compiler(RuntimeError("there is no C compiler"))
    forward = CompiledForward(double, compiler, side=8)
    samples = torch.ones(2, 4, 8, 8)

    assert torch.equal(forward(samples), double(samples))
    assert torch.equal(forward(samples), double(samples))

    assert len(compiler.shapes) == 1
    assert "cannot be compiled" in caplog.text


def test_memory_that_is_short_is_no_reason_to_give_up_compiling() -> None:
    compiler = Compiler(torch.OutOfMemoryError("CUDA out of memory"))
    forward = CompiledForward(double, compiler, side=8)

    with pytest.raises(torch.OutOfMemoryError):
        forward(torch.ones(2, 4, 8, 8))
    compiler.error = None

    assert torch.equal(forward(torch.ones(2, 4, 8, 8)), torch.full((2, 4, 8, 8), 2.001))
