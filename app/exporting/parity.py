"""Whether two computations of the same probabilities agree, and pictures to try that on. Imports numpy alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.exporting.errors import ParityFailed

Pixels = npt.NDArray[np.float32]
Probabilities = npt.NDArray[np.float32]

MIN_PICTURES: Final = 32

# Measured between torch and onnxruntime on the CPU, for EfficientNet-Lite0, ResNet18 and a CLIP tower: at most 6e-6 and
# 8e-5. One convolution of ResNet18 without its bias (the fault of pytorch #166797) moves them by above 0.1.
MAX_DIFFERENCE: Final = 1e-3
MAX_LOG_DIFFERENCE: Final = 1e-2
# A GPU multiplies in TensorFloat-32, with 10 bits of mantissa.
MAX_LOG_DIFFERENCE_OF_DEVICES: Final = 5e-2
# Below this, a log-probability has few exact digits.
_LEAST_PROBABILITY: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Parity:
    """How far two computations differ.

    Attributes:
        num_pictures: N.
        max_difference: The largest difference of a probability, 0 ... 1.
        max_log_difference: The largest difference of a log-probability, nats; of probabilities above 1e-5.
        num_other_classes: Pictures whose most probable class differs by more than a tie.
    """

    num_pictures: int
    max_difference: float
    max_log_difference: float
    num_other_classes: int


def compare(actual: Probabilities, expected: Probabilities, max_log_difference: float = MAX_LOG_DIFFERENCE) -> Parity:
    """Compare probabilities; log-probabilities too, as a confident head hides differences of its input.

    Shapes:
        actual, expected: (N, K), float32.

    Raises:
        ParityFailed: They differ by more than rounding, have different shapes, or a value is not finite.
    """
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        raise ParityFailed(1.0, float("inf"), len(expected), len(expected))
    difference = float(np.abs(actual - expected).max())
    is_large = expected > _LEAST_PROBABILITY
    logs = np.log(np.maximum(actual[is_large], 1e-30)) - np.log(expected[is_large])
    rows = np.arange(len(expected))
    margin = expected.max(axis=1) - expected[rows, actual.argmax(axis=1)]
    parity = Parity(
        num_pictures=len(expected),
        max_difference=difference,
        max_log_difference=float(np.abs(logs).max()),
        num_other_classes=int((margin > MAX_DIFFERENCE).sum()),
    )
    is_apart = parity.max_difference > max(MAX_DIFFERENCE, max_log_difference / 4)
    if is_apart or parity.max_log_difference > max_log_difference or parity.num_other_classes:
        raise ParityFailed(
            parity.max_difference, parity.max_log_difference, parity.num_other_classes, parity.num_pictures
        )
    return parity


def draw_pictures(number: int, preprocessing: Mapping[str, Any], seed: int = 0) -> Pixels:
    """Draw pictures of soft colour fields with rectangles, normalised; equal arguments give equal pictures.

    Shapes:
        returns: (number, 3, crop, crop), float32.
    """
    rng = np.random.default_rng(seed)
    side = int(preprocessing["crop"])
    fields = rng.random((number, 3, 5, 5), dtype=np.float32)
    pixels = _enlarge(fields, side)
    for picture in pixels:
        for _ in range(6):
            top, left = rng.integers(0, side, 2)
            height, width = rng.integers(1, side // 2 + 2, 2)
            picture[:, top : top + height, left : left + width] = rng.random((3, 1, 1), dtype=np.float32)
    pixels += rng.normal(0, 0.05, pixels.shape).astype(np.float32)
    mean, std = (np.array(preprocessing[key], np.float32).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    normalised: Pixels = ((pixels.clip(0, 1) - mean) / std).astype(np.float32)
    return normalised


def _enlarge(fields: Pixels, side: int) -> Pixels:
    """Interpolate (N, 3, h, w) linearly to (N, 3, side, side)."""
    for axis in (2, 3):
        count = fields.shape[axis]
        at = np.linspace(0, count - 1, side)
        low = np.minimum(at.astype(int), count - 2)
        part = (at - low).astype(np.float32).reshape([-1 if number == axis else 1 for number in range(4)])
        fields = fields.take(low, axis) * (1 - part) + fields.take(low + 1, axis) * part
    return fields
