"""Measures again, on an idle device, the sizes that were measured while other processes had the cores.

Imports neither HTTP nor SQL. The engine's device thread runs it, one forward at a time.
"""

from collections.abc import Callable
from typing import Protocol
from weakref import ref

from app.engine.diffusion.calibration import Calibration, Probe
from app.engine.diffusion.denoiser import ForwardSize

# Seconds between two looks for sizes that were disturbed.
LOOK_S = 5.0

# Pauses after a measurement that was disturbed too; each is twice the one before.
FIRST_PAUSE_S = 10.0
MAX_PAUSE_S = 300.0


class Measurable(Protocol):
    """What is measured: `DiffusionRunner`, or a fake of it in tests."""

    @property
    def disturbed_size(self) -> ForwardSize | None:
        """A size whose measurement was disturbed; None: there is none."""

    def probe(self, size: ForwardSize, /) -> Probe:
        """Return the forwards that measure a size."""

    def use(self, size: ForwardSize, calibration: Calibration, /) -> object:
        """Take forwards of a size as measured."""


class Remeasuring:
    """A piece of idle work, see `Engine.add_idle_work`; ends when the model is gone."""

    def __init__(self, model: Measurable, on_measured: Callable[[ForwardSize, Calibration], object]) -> None:
        """Measure nothing yet.

        Args:
            model: Is not kept alive.
            on_measured: Called with what an undisturbed measurement has found, once the model uses it.
        """
        self._model = ref(model)
        self._on_measured = on_measured
        self._size: ForwardSize | None = None
        self._probe: Probe | None = None
        self._pause_s = FIRST_PAUSE_S

    def __call__(self) -> float | None:
        """Run the next forward; return the seconds until the one after it."""
        model = self._model()
        if model is None:
            return None
        if self._probe is None or self._size is None:
            self._size = model.disturbed_size
            if self._size is None:
                return LOOK_S
            self._probe = model.probe(self._size)
        has_run = self._probe.advance()
        if self._probe.is_disturbed:
            self._probe = None
            pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, MAX_PAUSE_S)
            return pause_s
        if not has_run:
            calibration, self._probe, self._pause_s = self._probe.result(), None, FIRST_PAUSE_S
            model.use(self._size, calibration)
            self._on_measured(self._size, calibration)
        return 0.0
