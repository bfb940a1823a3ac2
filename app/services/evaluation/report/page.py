"""Rendering of a train job's report as one self-contained HTML page, and of its charts as PNG files.

Imports no database models and no HTTP framework. Jinja2 escapes every value (autoescape is on); the style sheet is the
only text inserted as it is, and it is a file of this package. The page has no scripts and loads nothing: images are
links, thumbnails are inside. Runs on a pool thread.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from app.schemas.evaluations import ClassMetricsRead, DifferenceInterval, Interval
from app.schemas.train_reports import ReportMistake, TrainReportRead
from app.services.evaluation.report.charts import draw_pictures, headline_metrics
from app.services.evaluation.report.picture import fitted
from app.services.evaluation.report.png import render_picture

# Rows of the page's tables; the JSON report has all.
MAX_CLASSES, MAX_PROMPTS, MAX_MISTAKES, MAX_SEEDS_SHOWN = 200, 200, 50, 8
# Columns of a prompt or a setting, and of a class's name, on the page; see `fitted`.
MAX_TEXT, MAX_NAME = 400, 80
# Characters of base64 of all thumbnails together.
MAX_THUMBNAILS = 1_000_000
_TEMPLATES = Path(__file__).parent / "templates"
_STYLE = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; img-src 'self' data:; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


def render_html(report: TrainReportRead) -> str:
    """Return the page.

    It is below 3 MB for any report: tables end after `MAX_CLASSES` classes (lowest recall first), `MAX_PROMPTS`
    prompts and `MAX_MISTAKES` mistakes, texts after `MAX_TEXT` columns, names after `MAX_NAME`, thumbnails after
    `MAX_THUMBNAILS`. Whatever is cut is counted on the page.
    """
    measured = headline_metrics(report)
    figures, images = measured if measured is not None else (None, "")
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            style=Markup(_STYLE),  # noqa: S704 - a file of this package
            pictures=draw_pictures(report),
            figures=figures,
            images=images,
            classes=_lowest_first(figures.per_class) if figures else [],
            mistakes=list(_with_thumbnails(report.mistakes[:MAX_MISTAKES])),
            limits={"classes": MAX_CLASSES, "prompts": MAX_PROMPTS, "mistakes": MAX_MISTAKES, "seeds": MAX_SEEDS_SHOWN},
        )
    )


def render_png(report: TrainReportRead, name: str) -> bytes | None:
    """Return a chart of the report as a PNG file; None if the report has none of this name (see `draw_pictures`)."""
    picture = draw_pictures(report).get(name)
    return None if picture is None else render_picture(picture)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "number": _number,
        "interval": _interval,
        "signed": _signed,
        "p_value": _p_value,
        "cut": partial(fitted, max_columns=MAX_TEXT),
        "short": partial(fitted, max_columns=MAX_NAME),
        "coordinate": _coordinate,
    }
    return environment


def _lowest_first(per_class: Sequence[ClassMetricsRead]) -> list[ClassMetricsRead]:
    """Return the classes of the table: all in their order, or those of the lowest recall."""
    if len(per_class) <= MAX_CLASSES:
        return list(per_class)
    return sorted(per_class, key=lambda one: one.recall.value if one.recall else 2.0)[:MAX_CLASSES]


def _with_thumbnails(mistakes: Sequence[ReportMistake]) -> Iterator[dict[str, Any]]:
    """Yield each mistake with the `data:` URL of its thumbnail, empty without one or once the page has enough."""
    left = MAX_THUMBNAILS
    for mistake in mistakes:
        encoded = mistake.thumbnail_b64 or ""
        left -= len(encoded)
        yield {"mistake": mistake, "thumbnail": _data_url(encoded) if left >= 0 else ""}


def _data_url(encoded: str) -> str:
    try:
        start = base64.b64decode(encoded[:16])
    except binascii.Error:
        return ""
    kind = next((kind for signature, kind in _SIGNATURES.items() if start.startswith(signature)), "")
    return f"data:{kind};base64,{encoded}" if kind else ""


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.value:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def _signed(difference: DifferenceInterval | None) -> str:
    """Return a difference in points of a hundred."""
    if difference is None:
        return "–"
    value, low, high = (f"{100 * end:+.1f}" for end in (difference.value, difference.low, difference.high))
    return f"{value} points ({low} to {high})"


def _p_value(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def _coordinate(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
