"""Images of the demo pack at two speeds, compared one by one: the same prompts, seeds and noise scheduler.

Takes pictures and scores; draws nothing and prints nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from app.image_spec import ImageSpec
from bench.demo_pack.metrics import Scores
from bench.demo_pack.words import natural_subject, painting

STEPS = 50
SEED = 1000
SIZE = 128
STYLES = ("a watercolor painting of", "an oil painting of", "a pencil drawing of", "a flat picture of")

# Two-sided 95 % of the normal distribution.
_Z = 1.96


@dataclass(frozen=True)
class Paired:
    """A mean of both speeds, and the mean of the paired differences with its 95 % interval.

    Attributes:
        change: `balanced` minus `exact`.
        margin: Half the width of the interval of `change`, >= 0.
    """

    exact: float
    balanced: float
    change: float
    margin: float

    @property
    def is_loss(self) -> bool:
        """Whether `balanced` is worse by more than chance explains."""
        return self.change + self.margin < 0


@dataclass(frozen=True)
class Comparison:
    """What `balanced` does with one noise scheduler.

    Attributes:
        psnr_db: Mean over the images; `lowest_psnr_db` is that of the least alike.
        clip_score: 100 x cosine of image and prompt.
        clip_class: Share of the images whose class CLIP picks among all.
        judge: Share of the images whose class the judge picks among all.
    """

    scheduler: str
    prompts: int
    rows: int
    rows_exact: int
    psnr_db: float
    lowest_psnr_db: float
    clip_score: Paired
    clip_class: Paired
    judge: Paired

    def for_manifest(self) -> dict[str, Any]:
        """Return the fields of `SpeedMeasurement`."""
        return {
            "scheduler": self.scheduler,
            "num_inference_steps": STEPS,
            "prompts": self.prompts,
            "rows": self.rows,
            "rows_exact": self.rows_exact,
            "psnr_db": round(self.psnr_db, 2),
            "clip_score": round(self.clip_score.balanced, 3),
            "clip_score_exact": round(self.clip_score.exact, 3),
            "clip_class_accuracy": round(self.clip_class.balanced, 4),
            "clip_class_accuracy_exact": round(self.clip_class.exact, 4),
            "judge_accuracy": round(self.judge.balanced, 4),
            "judge_accuracy_exact": round(self.judge.exact, 4),
        }

    def as_json(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Judged:
    """What the judges say of the images of one speed, one value an image.

    Attributes:
        clip_scores: 100 x cosine of image and prompt.
        clip_hits: 1 where CLIP picks the class, else 0.
        judge_hits: The same of the judge.
    """

    clip_scores: Scores
    clip_hits: Scores
    judge_hits: Scores


def make_specs(classes: Sequence[str], count: int, scheduler: str, speed: str) -> list[ImageSpec]:
    """Ask for `count` images: the classes in turn, each in its natural colour, in four styles."""
    return [
        ImageSpec.from_json(
            {
                "prompt": painting(natural_subject(classes[index % len(classes)]), STYLES[index // len(classes) % 4]),
                "num_inference_steps": STEPS,
                "width": SIZE,
                "height": SIZE,
                "seed": SEED + index,
                "scheduler": scheduler,
                "speed": speed,
            }
        )
        for index in range(count)
    ]


def compare(
    exact: Sequence[ImageSpec],
    balanced: Sequence[ImageSpec],
    images: tuple[Sequence[Image.Image], Sequence[Image.Image]],
    judged: tuple[Judged, Judged],
) -> Comparison:
    """Compare the images of two speeds; each pair has `exact` first."""
    alike = [psnr_db(first, second) for first, second in zip(*images, strict=True)]
    return Comparison(
        scheduler=exact[0].scheduler,
        prompts=len(exact),
        rows=sum(balanced[0].step_rows),
        rows_exact=sum(exact[0].step_rows),
        psnr_db=float(np.mean(alike)),
        lowest_psnr_db=min(alike),
        clip_score=paired(judged[0].clip_scores, judged[1].clip_scores),
        clip_class=paired(judged[0].clip_hits, judged[1].clip_hits),
        judge=paired(judged[0].judge_hits, judged[1].judge_hits),
    )


def psnr_db(first: Image.Image, second: Image.Image) -> float:
    """Return the PSNR of two pictures of one size, in dB; 99 for equal ones."""
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    error = float(np.mean(difference**2)) / 255**2
    return 99.0 if error == 0 else float(-10 * np.log10(error))


def paired(exact: Scores, balanced: Scores) -> Paired:
    """Compare two series, value by value. **Shapes**: (N,), N >= 2."""
    changes = np.asarray(balanced, np.float64) - np.asarray(exact, np.float64)
    margin = _Z * float(changes.std(ddof=1)) / len(changes) ** 0.5
    return Paired(float(np.mean(exact)), float(np.mean(balanced)), float(changes.mean()), margin)
