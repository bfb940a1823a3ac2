"""What is asked: three cases, each with its questions in every server's form, and the forward that it comes down to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bench.judging import forward, material
from bench.judging.answers import Scores, logit_scale_of, read_infinity, read_litserve, read_ours
from bench.judging.traffic import Load, Question

CASES = ("classify", "clip-repeated", "clip-unique")

Who = Literal["ours", "litserve", "infinity"]


@dataclass
class Case:
    """One thing that is asked, of ours and of the peers, and what came of it.

    Attributes:
        endpoint: Path of ours and of LitServe.
        labels: Of each question; none where there are classes instead.
        questions: For ours and LitServe.
        infinity_questions: For infinity; none where it has no such model.
        bare: The forward alone.
        least_ratio: Our questions a second must be so many times the best peer's.
        bare_per_second: Images a second of the forward alone, run by run.
        loads: What each server showed, run by run.
        settings: The name of each server's best setting.
    """

    name: str
    endpoint: str
    labels: list[list[str]]
    questions: list[Question]
    infinity_questions: list[Question]
    bare: forward.Forward
    logit_scale: float = 1.0
    least_ratio: float = 1.0
    bare_per_second: list[float] = field(default_factory=list)
    loads: dict[Who, list[Load]] = field(default_factory=dict)
    settings: dict[Who, str] = field(default_factory=lambda: {"ours": "ours"})

    def questions_for(self, who: Who) -> list[Question]:
        """Return the questions that a server understands."""
        return self.infinity_questions if who == "infinity" else self.questions

    def read(self, who: Who, number: int, answers: list[bytes]) -> Scores:
        """Read a server's answers to the question of this number."""
        if who == "ours":
            return read_ours(answers)
        labels = self.labels[number] if self.labels else []
        return read_litserve(answers, labels) if who == "litserve" else read_infinity(answers, labels, self.logit_scale)


def make_cases(models: Path, names: list[str]) -> list[Case]:
    """Write the weights where they are missing, draw pictures, and make the cases of these names."""
    models.mkdir(parents=True, exist_ok=True)
    material.write_models(models)
    images = material.draw_images()
    makers: dict[str, Callable[[], Case]] = {
        "classify": lambda: _classify(models, images),
        "clip-repeated": lambda: _clip(models, images, unique=False),
        "clip-unique": lambda: _clip(models, images, unique=True),
    }
    return [makers[name]() for name in names]


def _classify(models: Path, images: list[bytes]) -> Case:
    questions = material.classify_questions(images)
    return Case("classify", "classify", [], questions, [], forward.classify_forward(models))


def _clip(models: Path, images: list[bytes], *, unique: bool) -> Case:
    # More than any server answers while it is measured, so that unique sets are.
    labels = material.label_sets(unique=unique, count=1_500 if unique else 400)
    return Case(
        name=f"clip-score, label sets {'unique' if unique else 'repeated'}",
        endpoint="clip-score",
        labels=labels,
        questions=material.clip_questions(images, labels),
        infinity_questions=material.infinity_questions(images, labels),
        # Labels that are known cost no forward.
        bare=forward.clip_forward(models, labels if unique else None),
        logit_scale=logit_scale_of(models / "clip"),
        least_ratio=1.0 if unique else 1.3,
    )
