"""Images of the demo pack at `fast`, compared with 50 exact steps of the same prompts and seeds.

Takes scores; draws nothing and prints nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.image_spec import FewStepSettings, ImageSpec
from app.training.intervals import wilson
from bench.demo_pack.metrics import Scores
from bench.demo_pack.words import colours_of, painting
from bench.speed.measure import STYLES, paired

SEED = 3000
SIZE = 128
# The largest loss of class and colour that is accepted, in shares.
MAX_LOSS = 0.05
MAX_SECONDS = 0.25


@dataclass(frozen=True)
class Wanted:
    """What an image should show."""

    class_name: str
    colour: str


@dataclass(frozen=True)
class Measured:
    """A mean at both speeds, and half the width of the 95 % interval of the change, >= 0.

    Attributes:
        interval: That of `fast`, 95 %, of a share; None: the mean is no share.
    """

    name: str
    exact: float
    fast: float
    change: float
    margin: float
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, name: str, exact: Scores, fast: Scores) -> Measured:
        """Compare two series, value by value. **Shapes**: (N,), N >= 2."""
        pair, share = paired(exact, fast), wilson(round(float(fast.sum())), len(fast)) if is_share(name) else None
        interval = None if share is None else (share.low, share.high)
        return cls(name, pair.exact, pair.balanced, pair.change, pair.margin, interval)


def wishes(classes: Sequence[str], count: int) -> list[Wanted]:
    """Choose what the images show: the classes in turn, each in a random colour that it can have."""
    rng = np.random.default_rng(SEED)
    names = [classes[index % len(classes)] for index in range(count)]
    return [Wanted(name, str(rng.choice(colours_of(name)))) for name in names]


def make_specs(wanted: Sequence[Wanted], classes: Sequence[str], few_step: FewStepSettings | None) -> list[ImageSpec]:
    """Ask for the images at `fast`, or without settings of it at 50 exact steps of the pack's default scheduler."""
    base: dict[str, Any] = {"scheduler": "dpmpp_2m", "num_inference_steps": 50}
    if few_step is not None:
        base = {
            "speed": "fast",
            "scheduler": few_step.scheduler,
            "num_inference_steps": few_step.num_inference_steps,
            "guidance_scale": few_step.guidance_scale,
            "timestep_spacing": few_step.timestep_spacing,
        }
    return [
        ImageSpec.from_json(
            {
                **base,
                "prompt": painting(f"{each.colour} {each.class_name}", STYLES[index // len(classes) % len(STYLES)]),
                "width": SIZE,
                "height": SIZE,
                "seed": SEED + index,
            }
        )
        for index, each in enumerate(wanted)
    ]


def is_share(name: str) -> bool:
    """Return whether a figure is a share of the images."""
    return name.endswith("accuracy")


def for_manifest(
    few_step: FewStepSettings, rows: tuple[int, int], measured: Sequence[Measured], psnr_db: float, seconds: float
) -> dict[str, Any]:
    """Return the fields of `SpeedMeasurement`; `rows` are those of an image at `fast` and at 50 exact steps."""
    figures: dict[str, Any] = {
        "scheduler": few_step.scheduler,
        "num_inference_steps": few_step.num_inference_steps,
        "rows": rows[0],
        "rows_exact": rows[1],
        "psnr_db": round(psnr_db, 2),
        "seconds_per_image": round(seconds, 3),
    }
    for each in measured:
        figures |= {each.name: round(each.fast, 4), f"{each.name}_exact": round(each.exact, 4)}
    return figures


def render(measured: Sequence[Measured], seconds: float, num_prompts: int) -> str:
    """Lay out the table: one line a figure, and whether it reaches what `fast` promises."""
    lines = [f"{f'{num_prompts} prompts':<24} {'50 exact steps':>15} {'fast':>8} {'95 %':>16} {'change':>20}"]
    for each in measured:
        verdict = ("ok" if each.change >= -MAX_LOSS else "MISSED") if each.interval else ""
        interval = f"{each.interval[0]:.3f} to {each.interval[1]:.3f}" if each.interval else ""
        change = f"{each.change:+.4f} ± {each.margin:.4f}"
        line = f"{each.name:<24} {each.exact:>15.4f} {each.fast:>8.4f} {interval:>16} {change:>20}  {verdict}"
        lines.append(line.rstrip())
    lines.append(f"{'seconds an image alone':<24} {'':>15} {seconds:>8.3f} {'':>37}  ")
    lines[-1] += "ok" if seconds <= MAX_SECONDS else "MISSED"
    return "\n".join(lines)
