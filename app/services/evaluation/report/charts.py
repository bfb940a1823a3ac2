"""The charts of a train report: which shapes show which figures.

Imports no database models and no HTTP framework. Pure functions of the report; run on a pool thread.
"""

from collections.abc import Callable, Iterator, Sequence
from math import ceil

import numpy as np

from app.schemas.evaluations import ClassMetricsRead, Interval, SplitMetricsRead
from app.schemas.train_reports import EpochPoint, TrainReportRead
from app.services.evaluation.report.picture import Box, Dot, Label, Path, Picture, Role, Shape, fitted, num_columns
from app.training.metrics import merge_classes

# A phone's screen is 360 pixels wide, less the margins of the page.
WIDTH = 312
NAME_WIDTH, NAME_COLUMNS = 132, 18
# Pixels of a column of text; wide letters take more.
COLUMN = 7.4
ROW = 22
# Rows of the chart of classes and of the confusion matrix.
MAX_ROWS = 30
MAX_POINTS = 300
CELL = 26


def draw_pictures(report: TrainReportRead) -> dict[str, Picture]:
    """Return the charts of a report by name; a chart without figures is left out.

    The names are `accuracy`, `curves`, `classes`, `confusion` and `reliability`.
    """
    drawn = {"accuracy": _accuracy(report), "curves": _curves(report)}
    measured = headline_metrics(report)
    if measured is not None:
        figures, images = measured
        drawn["classes"] = _classes(figures, images)
        drawn["confusion"] = _confusion(figures, images)
        drawn["reliability"] = _reliability(figures, images)
    return {name: picture for name, picture in drawn.items() if picture is not None}


def headline_metrics(report: TrainReportRead) -> tuple[SplitMetricsRead, str] | None:
    """Return the metrics that the headline is of, and a name of their images; None without test images."""
    test = report.metrics.test
    named = (
        (test.real, "uploaded test images"),
        (test.synthetic, "generated test images"),
        (test.unseparated, "test images, uploaded and generated"),
    )
    return next(((figures, images) for figures, images in named if figures is not None), None)


def _accuracy(report: TrainReportRead) -> Picture | None:
    test, baselines = report.metrics.test, report.metrics.test.baselines
    measured: list[tuple[str, SplitMetricsRead | None, Role]] = [
        ("Model, uploaded", test.real, "first"),
        ("Model, generated", test.synthetic, "muted" if test.real else "first"),
        ("Model, all images", test.unseparated, "first"),
    ]
    compared = [
        ("CLIP zero-shot", baselines.clip_zero_shot),
        ("Nearest centroid", baselines.nearest_centroid),
        ("Majority class", baselines.majority),
    ]
    rows: list[tuple[str, Interval, Role]] = [
        *((name, figures.accuracy, role) for name, figures, role in measured if figures is not None),
        *((name, found.accuracy, "second") for name, found in compared if found is not None),
    ]
    if not rows:
        return None
    caption = "Share of test images that are right, with its 95% interval. Baselines: on the headline's images."
    return _interval_rows("Accuracy", caption, rows)


def _classes(figures: SplitMetricsRead, images: str) -> Picture | None:
    present = [one for one in figures.per_class if one.recall is not None]
    if not present:
        return None
    caption = f"Share of each class's {images} that is right, with its 95% interval."
    if len(present) > MAX_ROWS:
        caption += f" The {MAX_ROWS} lowest of {len(present)} classes."
        present = sorted(present, key=_recall)[:MAX_ROWS]
    rows: list[tuple[str, Interval, Role]] = [
        (one.name, one.recall, "muted" if one.is_small else "first") for one in present if one.recall is not None
    ]
    if any(one.is_small for one in present):
        caption += " Gray: fewer than 30 images."
    return _interval_rows("Recall by class", caption, rows)


def _recall(one: ClassMetricsRead) -> float:
    return one.recall.value if one.recall else 0.0


def _interval_rows(title: str, caption: str, rows: Sequence[tuple[str, Interval, Role]]) -> Picture:
    """Draw a bar for each share, a line for its interval, and the share in figures."""
    left, right, top = NAME_WIDTH + 8, WIDTH - 20, 20
    bottom = top + ROW * len(rows)
    to_x = _scale(0, 1, left, right)
    shapes: list[Shape] = []
    for tick in (0, 0.5, 1):
        shapes.append(Path([(to_x(tick), top), (to_x(tick), bottom)], "grid"))
        shapes.append(Label(to_x(tick), 10, f"{tick:.0%}", "middle", "muted"))
    for index, (name, share, role) in enumerate(rows):
        middle = top + ROW * (index + 0.5)
        shapes.append(Label(NAME_WIDTH, middle, fitted(name, NAME_COLUMNS), "end"))
        shapes.append(Box(left, middle - 6, to_x(share.value) - left, 12, role, 0.45))
        shapes.append(Path([(to_x(share.low), middle), (to_x(share.high), middle)], "ink", 1.5))
        shapes += [
            Path([(to_x(end), middle - 4), (to_x(end), middle + 4)], "ink", 1.5) for end in (share.low, share.high)
        ]
        shapes.append(Dot(to_x(share.value), middle, 3.5, role))
    return Picture(title, caption, WIDTH, bottom + 6, shapes)


def _curves(report: TrainReportRead) -> Picture | None:
    if not report.epochs:
        return None
    step = ceil(len(report.epochs) / MAX_POINTS)
    points = [*report.epochs[:-1:step], report.epochs[-1]]
    caption = f"Blue: training images; orange: {report.held_out_split} images. {len(report.epochs)} epochs."
    shapes = [
        *_panel(points, "Loss", 8, lambda one: one.train_loss, lambda one: one.held_out_loss, None),
        *_panel(points, "Accuracy", 172, lambda one: one.train_accuracy, lambda one: one.held_out_accuracy, 1.0),
    ]
    return Picture("Curves", caption, WIDTH, 336, shapes)


_Read = Callable[[EpochPoint], float | None]


def _panel(
    points: Sequence[EpochPoint], name: str, top: float, first: _Read, second: _Read, highest: float | None
) -> Iterator[Shape]:
    """Draw two lines over epochs in a panel of 160 pixels; the axis starts at 0."""
    left, right, upper, lower = 52, WIDTH - 12, top + 24, top + 136
    lines: tuple[tuple[Role, _Read], ...] = (("first", first), ("second", second))
    values = [value for _, read in lines for value in map(read, points) if value is not None]
    most = highest or max(values, default=1.0) or 1.0
    to_x = _scale(points[0].epoch, max(points[-1].epoch, points[0].epoch + 1), left, right)
    to_y = _scale(0, most, lower, upper)
    yield Label(left, top + 10, name)
    for share in (0, 0.5, 1):
        y = to_y(share * most)
        yield Path([(left, y), (right, y)], "grid")
        yield Label(left - 6, y, f"{share * most:.3g}", "end", "muted")
    yield Label(left, lower + 12, str(points[0].epoch), "middle", "muted")
    if len(points) > 1:
        yield Label(right, lower + 12, str(points[-1].epoch), "end", "muted")
    for role, read in lines:
        drawn = [
            (to_x(one.epoch), to_y(value)) for one, value in ((one, read(one)) for one in points) if value is not None
        ]
        yield Path(drawn, role, 2)
        if len(drawn) <= MAX_ROWS:
            yield from (Dot(x, y, 2.5, role) for x, y in drawn)


def _confusion(figures: SplitMetricsRead, images: str) -> Picture:
    names, is_merged = figures.confusion_classes, figures.num_merged_classes > 0
    counts = np.array(figures.confusion_matrix, np.int64)
    kept, matrix = merge_classes(counts, MAX_ROWS, is_last_merged=is_merged)
    caption = f"Rows: the true class; columns: what the model says; {images}. Shade: share of the row."
    shown = [fitted(names[label], NAME_COLUMNS) for label in kept]
    if len(matrix) > len(kept):
        shown.append(f"{len(names) + figures.num_merged_classes - len(kept)} others")
        caption += f" The {len(kept)} classes with the most errors; the last row and column are all others."
    reach = min(NAME_WIDTH, COLUMN * max(map(num_columns, shown)) + 2)
    left, top = reach + 6, reach + 6
    size = CELL * len(matrix)
    cells = _confusion_cells(matrix, left, top, num_classes=len(kept))
    shapes = [*_confusion_names(shown, left, top), *cells]
    return Picture("Confusion matrix", caption, ceil(left + size + 8), ceil(top + size + 8), shapes)


def _confusion_names(shown: Sequence[str], left: float, top: float) -> Iterator[Shape]:
    for index, name in enumerate(shown):
        middle = CELL * (index + 0.5)
        yield Label(left - 6, top + middle, name, "end")
        yield Label(left + middle, top - 6, name, "start", is_vertical=True)


def _confusion_cells(matrix: np.ndarray, left: float, top: float, *, num_classes: int) -> Iterator[Shape]:
    """Draw the cells; what lies among the merged classes is neither right nor wrong."""
    sums = np.maximum(matrix.sum(axis=1), 1)
    for row, column in np.ndindex(*matrix.shape):
        count = int(matrix[row, column])
        x, y = left + CELL * column, top + CELL * row
        yield Box(x, y, CELL - 1, CELL - 1, "grid", 0.25)
        if count:
            shade = 0.15 + 0.55 * count / int(sums[row])
            role: Role = "bad" if row != column else "good" if row < num_classes else "muted"
            yield Box(x, y, CELL - 1, CELL - 1, role, shade)
            yield Label(x + CELL / 2, y + CELL / 2, _brief(count), "middle")


def _brief(count: int) -> str:
    """Return a count in at most three characters."""
    if count < 1_000:
        return str(count)
    return f"{count // 1_000}k" if count < 100_000 else "…"


def _reliability(figures: SplitMetricsRead, images: str) -> Picture | None:
    calibrated = figures.calibration
    if calibrated is None:
        return None
    left, right, top, bottom, foot = 44, WIDTH - 12, 12, 232, 292
    to_x, to_y = _scale(0, 1, left, right), _scale(0, 1, bottom, top)
    most = max(one.count for one in calibrated.bins)
    shapes: list[Shape] = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        shapes.append(Path([(left, to_y(tick)), (right, to_y(tick))], "grid"))
        shapes.append(Label(left - 6, to_y(tick), f"{tick:.0%}", "end", "muted"))
        shapes.append(Label(to_x(tick), foot + 12, f"{tick:.0%}", "end" if tick == 1 else "middle", "muted"))
    for one in calibrated.bins:
        x, width = to_x(one.low) + 1, to_x(one.high) - to_x(one.low) - 2
        if one.accuracy is not None and one.confidence is not None:
            shapes.append(Box(x, to_y(one.accuracy), width, bottom - to_y(one.accuracy), "first", 0.45))
            shapes.append(Dot(to_x(one.confidence), to_y(one.accuracy), 3, "first"))
            height = 44 * one.count / most
            shapes.append(Box(x, foot - height, width, height, "muted", 0.6))
    shapes.append(Path([(left, bottom), (right, top)], "ink"))
    shapes.append(Label(left - 6, foot - 22, str(most), "end", "muted"))
    caption = (
        f"Bars: share right by confidence; the line: equal. Below: images, at most {most} a bin. ECE "
        f"{calibrated.ece:.3f} on {calibrated.n} {images}, {len(calibrated.bins)} bins; biased upward on few images."
    )
    return Picture("Reliability", caption, WIDTH, foot + 26, shapes)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (end - start) * (value - low) / (high - low)
