"""From the figures of `app.training` to the models of `app.schemas.evaluations`.

Imports no database models and no HTTP framework. Pure functions that run on the thread of their caller.
"""

from collections.abc import Callable, Sequence

import numpy as np

from app.schemas.common import ImageSource
from app.schemas.evaluations import (
    MAX_CONFUSED_PAIRS,
    MAX_CONFUSION,
    CalibrationRead,
    ClassMetricsRead,
    ConfusedPair,
    Interval,
    LabelErrorRead,
    LabelErrorsRead,
    MistakeRead,
    PairedDifferenceRead,
    SplitMetricsRead,
)
from app.training.comparison import PairedDifference
from app.training.label_errors import LabelErrors
from app.training.metrics import SplitMetrics, merge_classes
from app.training.mistakes import Mistake
from app.training.predictions import Ints


def split_metrics_read(metrics: SplitMetrics) -> SplitMetricsRead:
    """Return the metrics of a split as they are stored and answered."""
    names = [one.name for one in metrics.per_class]
    kept, matrix = merge_classes(metrics.confusion, MAX_CONFUSION)
    calibrated = metrics.calibration
    return SplitMetricsRead(
        n=metrics.n,
        accuracy=Interval.model_validate(metrics.accuracy),
        top_5=None if metrics.top_5 is None else Interval.model_validate(metrics.top_5),
        macro_f1=metrics.macro_f1,
        balanced_accuracy=metrics.balanced_accuracy,
        brier=metrics.brier,
        nll=metrics.nll,
        ece=None if calibrated is None else calibrated.ece,
        num_small_classes=sum(one.is_small for one in metrics.per_class),
        num_absent_classes=sum(one.support == 0 for one in metrics.per_class),
        per_class=[ClassMetricsRead.model_validate(one) for one in metrics.per_class],
        calibration=None if calibrated is None else CalibrationRead.model_validate(calibrated),
        confusion_classes=[names[label] for label in kept],
        num_merged_classes=len(names) - len(kept),
        confusion_matrix=matrix.tolist(),
        confused=confused_pairs(metrics.confusion, names),
    )


def confused_pairs(confusion: Ints, names: Sequence[str]) -> list[ConfusedPair]:
    """Return the most frequent errors of a confusion matrix (K, K), most frequent first."""
    errors = confusion.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:MAX_CONFUSED_PAIRS]
    cells = [divmod(int(place), len(names)) for place in order]
    return [
        ConfusedPair(class_name=names[true], predicted_class=names[predicted], count=int(errors[true, predicted]))
        for true, predicted in cells
        if errors[true, predicted]
    ]


def difference_read(found: PairedDifference) -> PairedDifferenceRead:
    """Return a paired difference with its verdict in a word."""
    fields = ("difference", "num_only_first", "num_only_second", "num_groups", "mcnemar_p", "detectable")
    verdict = "better" if found.is_better else "worse" if found.is_worse else "not_distinguishable"
    return PairedDifferenceRead.model_validate({**{name: getattr(found, name) for name in fields}, "verdict": verdict})


def mistakes_read(
    mistakes: Sequence[Mistake],
    *,
    image_ids: Sequence[str],
    sources: Sequence[ImageSource],
    class_names: Sequence[str],
    url: Callable[[str], str],
) -> list[MistakeRead]:
    """Return mistakes with their images.

    Args:
        mistakes: As `find_mistakes` returns them.
        image_ids: The id of each row.
        sources: The source of each row's image.
        class_names: The names of the classes, by label.
        url: Returns the URL of an image by its id.
    """
    return [
        MistakeRead(
            image_id=image_ids[one.index],
            url=url(image_ids[one.index]),
            source=sources[one.index],
            true_class=class_names[one.true],
            predicted_class=class_names[one.predicted],
            probability=one.probability,
            true_probability=one.true_probability,
        )
        for one in mistakes
    ]


def label_errors_read(
    found: LabelErrors, *, image_ids: Sequence[str], class_names: Sequence[str], url: Callable[[str], str]
) -> LabelErrorsRead:
    """Return suspected label errors with their images; the arguments are those of `mistakes_read`."""
    listed = [
        LabelErrorRead(
            image_id=image_ids[one.index],
            url=url(image_ids[one.index]),
            given_class=class_names[one.given],
            suggested_class=class_names[one.suggested],
            score=one.score,
            suggested_probability=one.suggested_probability,
        )
        for one in found.listed
    ]
    return LabelErrorsRead(num_suspected=found.num_suspected, n=found.n, listed=listed)
