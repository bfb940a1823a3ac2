"""Estimates the device's time for work that is not done yet; the only place that does.

The expected wait of a request and the dry run of a dataset both ask here. The unit of work is the row-step: one row of
one forward of the denoiser; a guided image has two in each of its steps. The cost of a step is known from the model's
calibration, or assumed to be rows x pixels; what the latest turns took scales it to the machine as it is now.

Pure Python, imports no torch. The batcher calls it, under the engine's lock.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from app.engine.request import Priority, Shape

# Weight of the past in a measured speed at each turn: about the last twenty turns count.
SPEED_MEMORY = 0.95

# Seconds after which a turn counts for a third in the load: long enough for an image of 50 steps, short enough that a
# client who has gone is forgotten within a minute.
LOAD_MEMORY_S = 20.0

# Cost of finishing an image, in row-steps, until one was finished: the decoder of Stable Diffusion has about twice the
# operations of a row of its UNet.
FINISH_ROW_STEPS = 2.0

# `measured`: by turns at this shape; `scaled`: by turns at other shapes; `calibrated`: before the first turn.
Basis = Literal["measured", "scaled", "calibrated"]


@dataclass(frozen=True, slots=True)
class Work:
    """Work of one shape that the device has to do.

    Attributes:
        shape: Sides of what one row works on; empty for models without shapes.
        row_steps: Rows x steps in all, >= 0.
        together: Rows that are there at a time and can share a step, >= 1; a step takes no more than its budget.
        finishes: Requests that are finished in turns of their own, >= 0.
        network: As in `RequestCost`.
    """

    shape: Shape
    row_steps: float
    together: int
    finishes: float = 0.0
    network: str = ""


@dataclass(slots=True)
class Speed:
    """Measured over expected cost of turns, with exponentially decaying weights.

    Attributes:
        spent_s: Weighted seconds of past turns.
        cost: Weighted expected cost of past turns, in the unit of the model's costs.
    """

    spent_s: float = 0.0
    cost: float = 0.0

    def record(self, cost: float, took_s: float) -> None:
        """Add a turn of this expected cost that took `took_s` seconds, > 0."""
        self.spent_s = SPEED_MEMORY * self.spent_s + took_s
        self.cost = SPEED_MEMORY * self.cost + cost

    @property
    def scale(self) -> float | None:
        """Seconds per unit of cost; None before anything was measured."""
        return self.spent_s / self.cost if self.cost else None


@dataclass(slots=True)
class Speeds:
    """Speeds by shape, and of all shapes together for those that have had no turn."""

    by_shape: dict[Shape, Speed] = field(default_factory=lambda: defaultdict(Speed))
    of_all: Speed = field(default_factory=Speed)

    def record(self, shape: Shape, cost: float, took_s: float) -> None:
        """Add a turn."""
        self.by_shape[shape].record(cost, took_s)
        self.of_all.record(cost, took_s)

    def scale(self, shape: Shape) -> float | None:
        """Return the seconds per unit of cost at a shape, else at all of them; None before the first turn."""
        return self.by_shape[shape].scale if shape in self.by_shape else self.of_all.scale


@dataclass(slots=True)
class DeviceTime:
    """What one model's turns cost.

    Attributes:
        in_seconds: Whether the costs of steps are calibrated seconds; otherwise nothing is known before the first step.
        steps: Speeds of steps, preparation included.
        finishes: Speeds of finishes that have turns of their own, by pixels.
    """

    in_seconds: bool = False
    steps: Speeds = field(default_factory=Speeds)
    finishes: Speeds = field(default_factory=Speeds)

    def basis(self, shape: Shape) -> Basis | None:
        """Return what an estimate at a shape rests on; None if there is nothing."""
        if shape in self.steps.by_shape:
            return "measured"
        return "scaled" if self.steps.of_all.cost else "calibrated" if self.in_seconds else None

    def seconds(
        self, work: Work, max_rows: Callable[[Shape], int], step_cost: Callable[[Shape, int], float]
    ) -> float | None:
        """Estimate the device's seconds for work, >= 0, if it does nothing else; None if nothing is known.

        Args:
            work: What is to be done.
            max_rows: Rows of a step, by shape.
            step_cost: Expected cost of a step, by shape and rows.
        """
        scale = self.steps.scale(work.shape) or (1.0 if self.in_seconds else None)
        if scale is None:
            return None
        rows = max(1, min(work.together, max_rows(work.shape)))
        row_step_s = scale * step_cost(work.shape, rows) / rows
        per_pixel_s = self.finishes.scale(work.shape)
        finish_s = FINISH_ROW_STEPS * row_step_s if per_pixel_s is None else per_pixel_s * math.prod(work.shape)
        return work.row_steps * row_step_s + work.finishes * finish_s


class Load:
    """The share of the latest time in which the device worked for each priority."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start idle; `clock` returns seconds."""
        self._clock = clock
        self._began = self._at = clock()
        self._busy_s = dict.fromkeys(Priority, 0.0)

    def record(self, priority: Priority, took_s: float) -> None:
        """Add a turn, or a part of one, that has just ended."""
        self._decay()
        self._busy_s[priority] += took_s

    def share(self, priority: Priority) -> float:
        """Return the share, 0 .. 1, over about the last `LOAD_MEMORY_S` seconds."""
        self._decay()
        window_s = LOAD_MEMORY_S * -math.expm1(-(self._at - self._began) / LOAD_MEMORY_S)
        return min(1.0, self._busy_s[priority] / window_s) if window_s > 0 else 0.0

    def _decay(self) -> None:
        now = self._clock()
        kept = math.exp((self._at - now) / LOAD_MEMORY_S)
        self._at = now
        for priority in Priority:
            self._busy_s[priority] *= kept


@dataclass(frozen=True, slots=True)
class DeviceEstimate:
    """The device's time for work, and what else it does.

    Attributes:
        seconds: If the device did nothing else, >= 0; None if nothing is known of the model's speed.
        basis: What `seconds` rests on.
        interactive_s: Seconds of interactive requests that wait or run now, >= 0.
        interactive_share: Share of the latest time that the device worked for interactive requests, 0 .. 1.
        first_use_s: Part of `seconds` that the first steps at shapes without one take in addition, >= 0.
    """

    seconds: float | None
    basis: Basis | None
    interactive_s: float
    interactive_share: float
    first_use_s: float = 0.0
