"""What the user of a trained model should know before quoting its figures.

Imports no database models and no HTTP framework. Pure functions that run on the thread of their caller.
"""

from collections.abc import Iterator, Sequence

from app.schemas.evaluations import SourcedMetricsRead, SplitMetricsRead
from app.schemas.generations import WarningRead
from app.services.evaluation.assess import in_words
from app.services.evaluation.report.picture import fitted
from app.training.metrics import SMALL_CLASS

MAX_IMBALANCE = 10
MIN_TRAINING_IMAGES = 5
_NAMED = 5
_NAME_COLUMNS = 40


def warnings_about_test(test: SourcedMetricsRead) -> list[WarningRead]:
    """Return the warnings about the test: none, generated only, small, incomplete, or no better than guessing."""
    if test.headline.source is None:
        detail = "There are no test images, so nothing is known about other images. Add a test split."
        return [WarningRead(code="no_test_images", detail=detail)]
    measured = test.real or test.synthetic
    found = list(_about_images(measured)) if measured else []
    if test.headline.source == "synthetic":
        found.insert(0, WarningRead(code="synthetic_test_only", detail=test.headline.sentence))
    return [*found, *_about_baselines(test)]


def few_images_warnings(class_names: Sequence[str], num_train: Sequence[int]) -> list[WarningRead]:
    """Return a warning if a class has fewer than five training images; the arguments are those below."""
    few = [name for name, num in zip(class_names, num_train, strict=True) if num < MIN_TRAINING_IMAGES]
    if not few:
        return []
    detail = f"Fewer than {MIN_TRAINING_IMAGES} training images of {_names(few)}. Add images to them."
    return [WarningRead(code="few_training_images", detail=detail)]


def imbalance_warnings(class_names: Sequence[str], num_train: Sequence[int]) -> list[WarningRead]:
    """Return a warning if one class has more than ten times the training images of another.

    Args:
        class_names: The names of the classes.
        num_train: Their training images, each >= 1.
    """
    if not num_train or max(num_train) <= MAX_IMBALANCE * min(num_train):
        return []
    most, least = num_train.index(max(num_train)), num_train.index(min(num_train))
    larger, smaller = (f"“{fitted(class_names[index], _NAME_COLUMNS)}”" for index in (most, least))
    detail = (
        f"{larger} has {num_train[most]} training images, {smaller} has {num_train[least]}. "
        "Add images to the smaller class, or use class weights; read macro-F1, not accuracy."
    )
    return [WarningRead(code="class_imbalance", detail=detail)]


def data_warnings(*, num_label_errors: int, num_examined: int, num_near_duplicates: int = 0) -> list[WarningRead]:
    """Return the warnings about labels.

    Args:
        num_label_errors: Images whose label is probably wrong.
        num_examined: Images whose labels were examined.
        num_near_duplicates: Pairs of nearly equal images with different labels.
    """
    found = []
    if num_label_errors:
        detail = f"{num_label_errors} of {num_examined} labels are probably wrong. Look at the listed images."
        found.append(WarningRead(code="suspected_label_errors", detail=detail))
    if num_near_duplicates:
        pairs = "1 pair" if num_near_duplicates == 1 else f"{num_near_duplicates} pairs"
        detail = f"{pairs} of nearly equal images with different labels. Remove one of each."
        found.append(WarningRead(code="near_duplicates_across_labels", detail=detail))
    return found


def _about_images(measured: SplitMetricsRead) -> Iterator[WarningRead]:
    absent = [one.name for one in measured.per_class if one.support == 0]
    small = [one.name for one in measured.per_class if one.is_small and one.support]
    if absent:
        detail = f"No test images of {_names(absent)}. The figures say nothing about them."
        yield WarningRead(code="class_absent_from_test", detail=detail)
    if small:
        detail = f"Fewer than {SMALL_CLASS} test images of {_names(small)}. Their figures may be far off."
        yield WarningRead(code="few_test_images", detail=detail)


def _about_baselines(test: SourcedMetricsRead) -> Iterator[WarningRead]:
    majority, accuracy = test.baselines.majority, test.headline.accuracy
    if majority is not None and accuracy is not None and accuracy.low <= majority.accuracy.value:
        detail = (
            f"No better than guessing: {in_words(accuracy)}, and the most frequent class alone gives "
            f"{majority.accuracy.value:.1%}. Try another backbone or more images."
        )
        yield WarningRead(code="no_better_than_majority", detail=detail)
    zero_shot = test.baselines.clip_zero_shot
    if zero_shot is not None and zero_shot.model_minus_baseline.verdict == "worse":
        detail = f"CLIP without any training is right on {zero_shot.accuracy.value:.1%} of the same images."
        yield WarningRead(code="worse_than_zero_shot", detail=detail)


def _names(names: Sequence[str]) -> str:
    listed = ", ".join(f"“{fitted(name, _NAME_COLUMNS)}”" for name in names[:_NAMED])
    return f"{listed} and {len(names) - _NAMED} more" if len(names) > _NAMED else listed
