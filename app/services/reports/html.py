"""Rendering of a dataset's report as one HTML page without scripts and external resources.

Imports no database models and no HTTP framework. A pure function of the report; runs on a pool thread. Every text from
a client passes `html.escape`; only literals of this module are inserted unescaped.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape

from app.schemas.reports import ClassReport, ConfusionCell, DatasetReportRead, ReportImage, ReportPairs

# Most classes of a confusion matrix; with more classes, the page lists the largest errors instead.
MAX_SQUARE = 16
MAX_ROWS_LISTED = 50
# Pixels. A page of 1,000 classes has up to 10,000 images, which browsers fetch when they are scrolled into view.
THUMBNAIL = 96

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 0 auto; max-width: 60rem; padding: 1rem }
h1, h2, h3 { line-height: 1.2; overflow-wrap: anywhere }
table { border-collapse: collapse; display: block; overflow-x: auto; max-width: 100% }
th, td { border: 1px solid #8886; padding: .2rem .5rem; text-align: right; max-width: 16rem; overflow-wrap: anywhere }
th { font-weight: 600 }
th:first-child, td.text { text-align: left }
td.own { background: #1a7f3733 }
td.other { background: #cf222e33 }
ul { display: flex; flex-wrap: wrap; gap: .5rem; list-style: none; padding: 0 }
img { display: block; height: 96px; width: 96px; object-fit: contain; background: #8883 }
small { display: block; max-width: 96px; overflow-wrap: anywhere }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; img-src 'self'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def report_page(report: DatasetReportRead, name: str, images: str) -> str:
    """Return the page.

    Args:
        report: The report.
        name: The dataset's name.
        images: The URL of images relative to the page; an image's id is appended.
    """
    parts = [
        f"<h1>{escape(name)}</h1>",
        _summary(report),
        "<h2>Classes</h2>",
        _table(_CLASS_HEAD, map(_class_row, report.classes)),
        "<h2>What CLIP takes the images for</h2>",
        _confusion(report),
        _pairs("Leakage: nearly equal images in two splits", report.leakage, images),
        _pairs("Near-duplicates", report.near_duplicates, images),
        "<h2>Best and worst images</h2>",
        *(_examples(entry, images) for entry in report.classes if entry.num_judged),
    ]
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}: report</title><style>{_STYLE}</style></head>"
    )
    return f"{head}<body>{''.join(parts)}</body></html>\n"


_THRESHOLDS = {
    "pack": "by which copies differ from other images of the same prompt with this CLIP model",
    "request": "as asked for",
}


def _summary(report: DatasetReportRead) -> str:
    sample = " (a sample)" if report.is_sample else ""
    left_out = f", {report.num_left_out} could not be" if report.num_left_out else ""
    lines = [
        f"{report.num_images} images: {report.num_synthetic} generated, {report.num_real} uploaded. "
        f"{report.num_judged} were judged{sample}{left_out}.",
        f"CLIP finds the own class most probable in {_percent(report.agreement)} of them. "
        f"Diversity {_number(report.diversity)}.",
        f"{report.leakage.num_images} test or validation images are nearly equal to an image of another split; "
        f"{report.near_duplicates.num_pairs} pairs are nearly equal (cosine ≥ {report.near_duplicate_cosine:g}, "
        f"{_THRESHOLDS[report.near_duplicate_cosine_from]}).",
        f"Judged by {report.model.name} {report.model.revision}. Version {report.version}.",
    ]
    if report.left_out:
        named = ", ".join(f"{image.image_id} ({image.code})" for image in report.left_out)
        lines.append(f"Could not be judged: {named}{', …' if report.num_left_out > len(report.left_out) else ''}.")
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


_CLASS_HEAD = (
    "Class",
    "Train",
    "Validation",
    "Test",
    "Generated",
    "Uploaded",
    "Agreement",
    "Mean p",
    "Diversity",
    "Classifier says",
)


def _class_row(entry: ClassReport) -> list[str]:
    labels = ", ".join(f"{label.label} {_percent(label.share)}" for label in entry.top_labels)
    counts = (entry.num_train, entry.num_validation, entry.num_test, entry.num_synthetic, entry.num_real)
    figures = (_percent(entry.agreement), _number(entry.mean_probability), _number(entry.diversity))
    return [_cell(entry.name, "text"), *map(_cell, (*counts, *figures)), _cell(labels, "text")]


def _confusion(report: DatasetReportRead) -> str:
    names = [entry.name for entry in report.classes]
    if len(names) > MAX_SQUARE:
        wrong = [cell for cell in report.confusion if cell.class_name != cell.predicted_class][:MAX_ROWS_LISTED]
        rows = ([_cell(c.class_name, "text"), _cell(c.predicted_class, "text"), _cell(c.count)] for c in wrong)
        return f"<p>The {len(wrong)} largest errors.</p>" + _table(("Class", "Taken for", "Images"), rows)
    return _table(("Class", *names), _square(names, report.confusion))


def _square(names: Sequence[str], cells: Iterable[ConfusionCell]) -> Iterable[list[str]]:
    counts = {(cell.class_name, cell.predicted_class): cell.count for cell in cells}
    for own in names:
        row = [_cell(own, "text")]
        for other in names:
            count = counts.get((own, other), 0)
            row.append(_cell(count, "own" if own == other else "other" if count else ""))
        yield row


def _pairs(title: str, found: ReportPairs, images: str) -> str:
    shown = found.pairs[:MAX_ROWS_LISTED]
    rows = (
        [
            *(
                f"<td>{_picture(image_id, images, f'{split}/{name}')}</td>"
                for image_id, name, split in zip(pair.image_ids, pair.class_names, pair.splits, strict=True)
            ),
            _cell(f"{pair.cosine:.4f}"),
        ]
        for pair in shown
    )
    count = f"<p>{found.num_pairs} pairs" + (f", the closest {len(shown)}" if len(shown) < found.num_pairs else "")
    return f"<h2>{escape(title)}</h2>{count}.</p>" + (_table(("One", "Other", "Cosine"), rows) if shown else "")


def _examples(entry: ClassReport, images: str) -> str:
    rows = (("Best", entry.best), ("Worst", entry.worst))
    lists = (f"<h4>{title}</h4><ul>{''.join(_example(one, images) for one in some)}</ul>" for title, some in rows)
    return f"<h3>{escape(entry.name)}</h3>{''.join(lists)}"


def _example(image: ReportImage, images: str) -> str:
    text = f"{image.split}, {image.source}, p {image.probability:.3f}, taken for {image.predicted_class}"
    return f"<li>{_picture(image.image_id, images, text)}</li>"


def _picture(image_id: str, images: str, text: str) -> str:
    link = escape(f"{images}{image_id}")
    image = f'<img src="{link}" alt="" loading="lazy" width="{THUMBNAIL}" height="{THUMBNAIL}">'
    return f'<a href="{link}">{image}</a><small>{escape(text)}</small>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already, with headings that are plain text."""
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object, kind: str = "") -> str:
    mark = f' class="{kind}"' if kind else ""
    return f"<td{mark}>{escape(str(value))}</td>"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
