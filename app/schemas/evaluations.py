"""Response models of a classifier's metrics, with the definition of every figure. Imports no services; pure.

The same models are the JSON of the database's columns: `model_dump(mode="json")` writes it, `model_validate` reads it.
A figure of real images and one of generated images are never averaged.
"""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from app.schemas.common import ImageSource, Page, Request, ResourceId, Response, Sha256, Split, UtcTime
from app.schemas.generations import WarningRead

MAX_CLASSES = 1_000
# Rows of a confusion matrix; with more classes, all but the most confused ones are merged.
MAX_CONFUSION = 100
MAX_CONFUSED_PAIRS = 50
MAX_LISTED = 100
NUM_BINS = 15

Share = Annotated[float, Field(ge=0, le=1)]
Difference = Annotated[float, Field(ge=-1, le=1)]
Count = Annotated[int, Field(ge=0)]
EvaluatedSplit = Split
Verdict = TypeAliasType(
    "Verdict",
    Annotated[
        Literal["better", "worse", "not_distinguishable"],
        Field(description="`better` or `worse` (the first) if the interval excludes 0 and `mcnemar_p` is below 0.05."),
    ],
)


class Interval(Response):
    """A share with its 95 % Wilson interval, which assumes independent images."""

    value: Share
    low: Share
    high: Share
    n: int = Field(ge=1, description="The number of images that `value` was measured on.")


class DifferenceInterval(Response):
    """A difference of two shares with its 95 % interval."""

    value: Difference
    low: Difference
    high: Difference
    n: int = Field(ge=1, description="The number of images that both were measured on.")


class ClassMetricsRead(Response):
    """One class against the rest."""

    name: str
    precision: Share | None = Field(description="Null if no image was predicted as this class.")
    recall: Interval | None = Field(description="Null for a class without images.")
    f1: Share | None = Field(description="Null for a class without images.")
    support: Count = Field(description="The number of images of this class.")
    is_small: bool = Field(description="Fewer than 30 images: the figures of this class say little.")


class CalibrationBinRead(Response):
    """The images whose confidence is above `low` and at most `high`."""

    low: Share
    high: Share
    count: Count
    confidence: Share | None = Field(description="Their mean confidence; null without images.")
    accuracy: Share | None = Field(description="The share of them that is right; null without images.")


class CalibrationRead(Response):
    """Whether confidence means accuracy."""

    ece: Share = Field(
        description="Expected calibration error: the mean over images of |accuracy - confidence| of their bin. Biased "
        "upward on few images; compare it only between tests of the same `n` and the same bins."
    )
    n: int = Field(ge=1)
    bins: Annotated[list[CalibrationBinRead], Field(max_length=NUM_BINS)]


class ConfusedPair(Response):
    """The number of images of one class that were predicted as another."""

    class_name: str
    predicted_class: str
    count: int = Field(ge=1)


class SplitMetricsSummary(Response):
    """The metrics of a classifier on one set of images, without tables."""

    n: int = Field(ge=1, description="The number of images.")
    accuracy: Interval = Field(description="Share of the images whose most probable class is the true one.")
    top_5: Interval | None = Field(
        description="Share of the images whose true class is among the five most probable; null below six classes."
    )
    macro_f1: Share | None = Field(description="Unweighted mean of the F1 of the classes that have images.")
    balanced_accuracy: Share | None = Field(description="Unweighted mean of the recalls of the classes with images.")
    brier: Annotated[float, Field(ge=0, le=2)] | None = Field(
        description="Mean of the squared error of the probabilities, summed over classes; lower is better."
    )
    nll: Annotated[float, Field(ge=0)] | None = Field(
        description="Mean negative log-likelihood of the true class, nats; ln K is that of guessing among K classes."
    )
    ece: Share | None = Field(description="Expected calibration error, see `calibration`.")
    num_small_classes: Count = Field(description="Classes with fewer than 30 images, those without included.")
    num_absent_classes: Count = Field(description="Classes without images; no mean includes them.")


class SplitMetricsRead(SplitMetricsSummary):
    """The metrics of a classifier on one set of images."""

    per_class: Annotated[list[ClassMetricsRead], Field(max_length=MAX_CLASSES)] = Field(
        description="In the order of the model's classes."
    )
    calibration: CalibrationRead | None
    confusion_classes: Annotated[list[str], Field(max_length=MAX_CONFUSION)] = Field(
        description="The classes of the rows and columns of `confusion_matrix`."
    )
    num_merged_classes: Count = Field(
        description=f"0 for up to {MAX_CONFUSION} classes. Otherwise the matrix has the {MAX_CONFUSION - 1} classes "
        "with the most errors, and its last row and column are all others, this many, which have no name in "
        "`confusion_classes`."
    )
    confusion_matrix: Annotated[list[list[int]], Field(max_length=MAX_CONFUSION)] = Field(
        description="`[true][predicted]` counts images."
    )
    confused: Annotated[list[ConfusedPair], Field(max_length=MAX_CONFUSED_PAIRS)] = Field(
        description=f"The most frequent errors of all classes, at most {MAX_CONFUSED_PAIRS}, most frequent first."
    )


class PairedDifferenceRead(Response):
    """The accuracy of a first classifier minus that of a second one on the same images."""

    difference: DifferenceInterval = Field(
        description="With the percentile interval of a paired bootstrap: 10,000 seeded resamples of images, or of "
        "groups of images that share a prompt and seed."
    )
    num_only_first: Count = Field(description="Images that only the first has right.")
    num_only_second: Count = Field(description="Images that only the second has right.")
    num_groups: int = Field(ge=1, description="The number of groups resampled; that of images without groups.")
    mcnemar_p: Share = Field(description="Exact two-sided p-value of McNemar's test; it ignores groups.")
    detectable: Share | None = Field(
        description="The least difference that a test of this size finds in 80 % of cases at a level of 5 % (Connor "
        "1987); null if it cannot find even a difference of 1."
    )
    verdict: Verdict


class BaselineRead(Response):
    """A classifier that needs no training, on the same images as the headline."""

    source: ImageSource = Field(description="The images of the comparison.")
    accuracy: Interval
    model_minus_baseline: PairedDifferenceRead


class BaselinesRead(Response):
    """What the model has to beat; null where a baseline was not computed."""

    majority: BaselineRead | None = Field(description="Always the most frequent class of the training images.")
    nearest_centroid: BaselineRead | None = Field(
        description="The class whose mean training feature (scaled to length 1) is nearest."
    )
    clip_zero_shot: BaselineRead | None = Field(description="CLIP with the classes' names, without any training image.")


class HeadlineRead(Response):
    """The one figure to quote."""

    source: ImageSource | None = Field(
        description="`real` if there are real images; null without images, or if they were not measured apart."
    )
    accuracy: Interval | None
    sentence: str = Field(description="The figure in words, with what it was measured on.")


class SourcedMetricsSummary(Response):
    """The metrics on the images of one split, real and generated ones apart, without tables."""

    real: SplitMetricsSummary | None = Field(description="On uploaded images; null without any.")
    synthetic: SplitMetricsSummary | None = Field(
        description="On generated images; null without any. Far higher than on real images, as a rule."
    )
    unseparated: SplitMetricsSummary | None = Field(
        description="Of models that a release before 0.3 trained: on all images of the split, of either source."
    )
    headline: HeadlineRead
    baselines: BaselinesRead


class SourcedMetricsRead(SourcedMetricsSummary):
    """The metrics on the images of one split, real and generated ones apart."""

    real: SplitMetricsRead | None = Field(description="On uploaded images; null without any.")
    synthetic: SplitMetricsRead | None = Field(
        description="On generated images; null without any. Far higher than on real images, as a rule."
    )
    unseparated: SplitMetricsRead | None = Field(
        description="Of models that a release before 0.3 trained: on all images of the split, of either source."
    )


class MetricsSummary(Response):
    """The metrics of a model as lists return them."""

    train: SourcedMetricsSummary = Field(description="On the images it was trained on: flattering by nature.")
    validation: SourcedMetricsSummary = Field(description="On the images that settings were chosen by.")
    test: SourcedMetricsSummary = Field(description="On images that nothing was chosen by.")


class MetricsRead(MetricsSummary):
    """The metrics of a model."""

    train: SourcedMetricsRead = Field(description="On the images it was trained on: flattering by nature.")
    validation: SourcedMetricsRead = Field(description="On the images that settings were chosen by.")
    test: SourcedMetricsRead = Field(description="On images that nothing was chosen by.")


class MistakeRead(Response):
    """An image that the model has wrong."""

    image_id: str
    url: str
    source: ImageSource
    true_class: str
    predicted_class: str
    probability: Share = Field(description="The model's probability of `predicted_class`.")
    true_probability: Share = Field(description="The model's probability of `true_class`.")


class LabelErrorRead(Response):
    """An image whose label is probably wrong."""

    image_id: str
    url: str
    given_class: str
    suggested_class: str
    score: Share = Field(description="Probability of the given class by a classifier that was not trained on it.")
    suggested_probability: Share


class LabelErrorsRead(Response):
    """Images whose label is probably wrong, by confident learning on out-of-sample probabilities (five folds)."""

    num_suspected: Count
    n: Count = Field(description="The number of images examined.")
    listed: Annotated[list[LabelErrorRead], Field(max_length=MAX_LISTED)] = Field(
        description=f"At most {MAX_LISTED}, the lowest score first."
    )


class EvaluationCreate(Request):
    """A dataset to evaluate a model on."""

    dataset_id: ResourceId = Field(description="A dataset whose classes are all among the model's.")
    split: EvaluatedSplit = "test"


class EvaluationSummary(Response):
    """An evaluation of a model on a dataset as lists return it."""

    id: str
    model_id: str
    job_id: str = Field(description="The job that evaluated: a train job for its own test split, or an `evaluate` job.")
    dataset_id: str
    dataset_name: str = Field(description="As it was then; the dataset may be deleted meanwhile.")
    dataset_version: Sha256
    split: EvaluatedSplit
    created_at: UtcTime
    metrics: SourcedMetricsSummary
    warnings: list[WarningRead]


class EvaluationPage(Page[EvaluationSummary]):
    """A page of evaluations, newest first."""


class EvaluationRead(EvaluationSummary):
    """An evaluation of a model on a dataset."""

    metrics: SourcedMetricsRead
    mistakes: Annotated[list[MistakeRead], Field(max_length=MAX_LISTED)] = Field(
        description=f"At most {MAX_LISTED}, the most confident first."
    )
