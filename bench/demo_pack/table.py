"""Figures against their targets, and the table that shows them. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Attributes:
        value: A share from 0 to 1 where the unit is `%` or `points`, else in the unit.
        target: What the value must reach; None: reported without a target.
        is_limit: The target is the largest allowed value instead of the smallest.
    """

    name: str
    value: float
    target: float | None = None
    unit: str = "%"
    is_limit: bool = False

    @property
    def verdict(self) -> str:
        """`ok`, `BELOW`, `ABOVE` (of a limit), or nothing without a target; a value that is no number never passes."""
        if self.target is None:
            return ""
        if self.is_limit:
            return "ok" if self.value <= self.target else "ABOVE"
        return "ok" if self.value >= self.target else "BELOW"


@dataclass(frozen=True)
class Outcome:
    """What one part of the report gives.

    Attributes:
        quality: Goes into the manifest, under the part's name.
        rows: Pictures of the part's sheet, row by row.
    """

    figures: list[Figure]
    quality: dict[str, Any]
    rows: list[list[Image.Image]] = field(default_factory=list)


def shown(value: float, unit: str) -> str:
    """Write a value as people read it: shares as percents."""
    if unit in ("%", "points"):
        return f"{value * 100:.1f} {unit}"
    return f"{value:.2f} {unit}"


def render(figures: Sequence[Figure]) -> str:
    """Lay out the table, and say below it how many figures miss their target."""
    head = ("figure", "value", "target", "verdict")
    rows = [head, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{name:<{widths[0]}}  {value:>{widths[1]}}  {target:>{widths[2]}}  {verdict}".rstrip()
        for name, value, target, verdict in rows
    ]
    lines.insert(1, "-" * max(len(line) for line in lines))
    missed = [figure.name for figure in figures if figure.verdict in ("BELOW", "ABOVE")]
    judged = sum(figure.target is not None for figure in figures)
    lines += [
        "",
        f"{len(missed)} of {judged} targets MISSED: {'; '.join(missed)}" if missed else "every target reached",
    ]
    return "\n".join(lines)


def as_json(figures: Sequence[Figure]) -> list[dict[str, object]]:
    """Give the table's rows for a program to read."""
    return [
        {"figure": f.name, "value": round(f.value, 4), "target": f.target, "unit": f.unit, "verdict": f.verdict}
        for f in figures
    ]


def _row(figure: Figure) -> tuple[str, str, str, str]:
    target = ""
    if figure.target is not None:
        target = ("<= " if figure.is_limit else ">= ") + shown(figure.target, figure.unit)
    return figure.name, shown(figure.value, figure.unit), target, figure.verdict
