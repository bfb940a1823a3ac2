"""Measuring again what was disturbed, with fake forwards on a clock of their own."""

import pytest
import torch

from app.engine.diffusion.calibration import Calibration, Meter, Probe
from app.engine.diffusion.denoiser import ForwardSize
from app.services.inference.diffusion.remeasuring import FIRST_PAUSE_S, LOOK_S, Remeasuring

NATIVE, SMALL = (16, 16, 77), (8, 8, 77)


class Model:
    """A model whose forwards take 10 ms a row, and as long again without a core on a busy machine."""

    def __init__(self, *disturbed: ForwardSize) -> None:
        self.disturbed = list(disturbed)
        self.used: dict[ForwardSize, Calibration] = {}
        self.forwards: list[int] = []
        self.is_busy = False
        self._now = self._waited = 0.0

    @property
    def disturbed_size(self) -> ForwardSize | None:
        return self.disturbed[0] if self.disturbed else None

    def probe(self, _size: ForwardSize) -> Probe:
        return Probe(self._forward, 10.0, Meter(lambda: self._now, lambda: self._waited), sizes=(2, 3, 4), max_tries=1)

    def use(self, size: ForwardSize, calibration: Calibration) -> None:
        self.used[size] = calibration
        self.disturbed.remove(size)

    def _forward(self, rows: int) -> torch.Tensor:
        self.forwards.append(rows)
        self._now += 0.01 * rows * (1 + self.is_busy)
        self._waited += 0.01 * rows * self.is_busy
        return torch.zeros(2)


def test_a_disturbed_size_is_measured_one_forward_at_a_time() -> None:
    model = Model(NATIVE)
    told: list[ForwardSize] = []
    piece = Remeasuring(model, lambda size, _: told.append(size))
    for number in range(1, 5):
        assert piece() == 0.0
        assert len(model.forwards) == number
    assert told == []
    assert piece() == 0.0
    assert told == [NATIVE]
    assert model.used[NATIVE].seconds == pytest.approx({2: 0.02, 3: 0.03, 4: 0.04})
    assert piece() == LOOK_S, "nothing is left to measure"
    assert len(model.forwards) == 4


def test_on_a_machine_that_is_still_busy_it_pauses_for_longer_each_time() -> None:
    model = Model(NATIVE)
    piece = Remeasuring(model, lambda *_: None)
    model.is_busy = True
    pauses = [piece() for _ in range(6)]
    assert pauses == [0.0, FIRST_PAUSE_S, 0.0, 2 * FIRST_PAUSE_S, 0.0, 4 * FIRST_PAUSE_S]
    assert model.used == {}

    model.is_busy = False
    while piece() == 0.0:
        pass
    assert not model.used[NATIVE].is_disturbed
    model.disturbed = [SMALL]
    model.is_busy = True
    assert [piece(), piece()] == [0.0, FIRST_PAUSE_S], "pauses begin anew"


def test_a_model_that_is_gone_ends_the_work() -> None:
    model = Model(NATIVE)
    piece = Remeasuring(model, lambda *_: None)
    del model
    assert piece() is None
