"""Response models of a train job's report. Imports no services; pure.

The report is complete as JSON; its HTML page is a rendering of the same model that shortens long lists.
"""

from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from typing_extensions import TypeAliasType

from app.schemas.common import Response, Seed, Sha256, UtcTime
from app.schemas.evaluations import (
    MAX_CLASSES,
    MAX_LISTED,
    Count,
    DifferenceInterval,
    EvaluatedSplit,
    Interval,
    LabelErrorsRead,
    MetricsRead,
    MistakeRead,
)
from app.schemas.generations import WarningRead

PictureName = TypeAliasType(
    "PictureName",
    Annotated[
        Literal["accuracy", "curves", "classes", "confusion", "reliability"],
        Field(description="A chart of a train job's report."),
    ],
)
MAX_EPOCHS = 1_000
MAX_PROMPTS = 1_000
MAX_SEEDS = 20
MAX_SETTINGS = 100
# Characters of base64 of one thumbnail: 96 x 96 pixels as JPEG take 2 to 4 KB.
MAX_THUMBNAIL = 16_384


def _finite_or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not isfinite(value) else value


# JSON has no infinity.
Finite = Annotated[float | None, BeforeValidator(_finite_or_null)]


class SettingRead(Response):
    """One setting of the training as text."""

    name: str
    value: str


class EpochPoint(Response):
    """The curves at the end of one epoch."""

    epoch: int = Field(ge=1)
    train_loss: Finite = Field(description="Null if it was not finite.")
    train_accuracy: float | None
    held_out_loss: Finite = Field(description="Null without held-out images, or if it was not finite.")
    held_out_accuracy: float | None


class ReportMistake(MistakeRead):
    """An image that the model has wrong, with a small copy."""

    thumbnail_b64: Annotated[str, Field(max_length=MAX_THUMBNAIL, pattern=r"^[A-Za-z0-9+/]*={0,2}$")] | None = Field(
        None, description="PNG, JPEG or WebP of about 96 x 96 pixels, base64; null: the page links the image only."
    )


class AblationRow(Response):
    """What one part of a recipe gave."""

    part: str
    with_part: Interval
    without_part: Interval
    difference: DifferenceInterval | None = Field(description="With minus without, paired on the same images.")


class ClassImages(Response):
    """How many images of a class the dataset has."""

    class_name: str
    num_train: Count
    num_validation: Count
    num_test: Count
    num_real: Count = Field(description="Of all splits; the others were generated.")


class PromptLineage(Response):
    """A prompt, and the images that were generated from it."""

    class_name: str
    prompt: str
    num_images: int = Field(ge=1)
    seeds: Annotated[list[Seed], Field(max_length=MAX_SEEDS)] = Field(
        description=f"The seeds of the first {MAX_SEEDS} images."
    )


class ReportLineage(Response):
    """What the model was made from."""

    dataset_id: str
    dataset_name: str
    dataset_version: Sha256 | None = Field(description="Null for models of releases that did not record it.")
    backbone: str
    backbone_sha256: Sha256
    preprocessing: str
    model_sha256: Sha256
    generator: str | None = Field(description="The pack and revision that generated images; null if none did.")
    classes: Annotated[list[ClassImages], Field(max_length=MAX_CLASSES)]
    prompts: Annotated[list[PromptLineage], Field(max_length=MAX_PROMPTS)]
    num_prompts: Count = Field(description="The number of different prompts; more than listed if the list is cut.")


class TrainReportRead(Response):
    """The report of a train job."""

    name: str = Field(description="The model's name.")
    job_id: str
    model_id: str
    created_at: UtcTime
    settings: Annotated[list[SettingRead], Field(max_length=MAX_SETTINGS)]
    epochs: Annotated[list[EpochPoint], Field(max_length=MAX_EPOCHS)] = Field(
        description="Empty for a head that is not fitted by epochs."
    )
    held_out_split: EvaluatedSplit = Field(description="The images of the curves' second line.")
    metrics: MetricsRead
    mistakes: Annotated[list[ReportMistake], Field(max_length=MAX_LISTED)] = Field(
        description="Of the headline's images, the most confident first."
    )
    label_errors: LabelErrorsRead | None = Field(description="Null if labels were not examined.")
    ablation: list[AblationRow] = Field(description="Of the preset `from_prompts`; otherwise empty.")
    lineage: ReportLineage
    warnings: list[WarningRead]
