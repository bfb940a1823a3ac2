"""Response models of what each kind of job was asked for: its `spec`. Imports no services; pure.

A spec is the JSON that the job was submitted with, maybe by an older release: members that a release did not write yet
are left out. The types that write and read it for the worker are in `app/services/*/payloads.py`.
"""

from typing import Annotated, Literal

from pydantic import Field

from app.schemas.common import Recorded, Response, Seed
from app.schemas.evaluations import EvaluatedSplit
from app.schemas.generations import GenerationParameters, WarningRead
from app.schemas.heads import (
    EarlyStoppingRead,
    FineTuneMode,
    FineTuningRead,
    HeadRead,
    OptimizerRead,
    ValidationRead,
    ViewsRead,
)
from app.schemas.recipes import ClipFilterRead, Combine, PresetName, RecipeSettingsRead


class GenerateSpec(GenerationParameters):
    """The request of a `generate` job with every value as used."""

    preview: int | None = Field(None, description="Every n-th step event has a preview; null: none has.")


class FilledSlots(Recorded):
    """The slots that a job leaves as they are: those below these positions, in each class."""

    train: int = 0
    validation: int = 0
    test: int = 0


class TriedSlots(FilledSlots):
    """The slots that earlier jobs attempted, below these positions, and how often."""

    attempts: int = 0


class DatasetSpecExtension(Response):
    """How many images a job adds to each class."""

    train_per_class: int = 0
    validation_per_class: int = 0
    test_per_class: int = 0


class DatasetRequestRead(Recorded):
    """A dataset's request without its texts, which `/datasets/{dataset_id}/recipe` has."""

    name: str | None = Field(None, description="Left out, like what follows, in a job that extends a dataset.")
    seed: Seed | None = Field(None, description="Null: it was drawn; the dataset has it.")
    train_per_class: int | None = None
    validation_per_class: int | None = None
    test_per_class: int | None = None
    preset: PresetName | None = None
    generation: RecipeSettingsRead | None = None
    combine: Combine | None = None
    filter: ClipFilterRead | None = None
    max_attempts: int | None = None


class DatasetSpec(DatasetRequestRead):
    """The request of a `dataset` job."""

    dataset_id: str
    extend: DatasetSpecExtension | None = Field(None, description="Null unless the job extends a dataset.")
    made: FilledSlots | None = Field(None, description="The slots that the job does not fill; null: it fills all.")
    tried: TriedSlots | None = Field(None, description="The attempts of earlier jobs; null: there are none.")


class RepairSpec(Response):
    """The request of a `repair` job."""

    dataset_id: str


class TrainSpec(Recorded):
    """The request of a `train` job with every value resolved."""

    dataset_id: str
    name: str | None = Field(None, description="Of the model.")
    backbone: str | None = None
    method: Literal["linear_probe"] | None = None
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: OptimizerRead | None = Field(None, description="Those of `head` count where it is given.")
    seed: Seed | None = None
    allow_incomplete: bool = False
    dataset: DatasetRequestRead | None = Field(None, description="The dataset that the job makes first, if any.")
    backbone_sha256: str | None = None
    head: HeadRead | None = None
    validation: ValidationRead | None = None
    early_stopping: EarlyStoppingRead | None = None
    augment: ViewsRead | None = None
    preset: Literal["from_prompts"] | None = None
    fine_tune: FineTuneMode | None = None
    fine_tuning: FineTuningRead | None = None
    made: FilledSlots | None = Field(None, description="Of a retry: the slots of its dataset that it does not fill.")
    tried: TriedSlots | None = Field(None, description="Of a retry: the attempts of earlier jobs.")


class TrainJobSpec(TrainSpec):
    """The request of a `train` job as its job has it."""

    warnings: Annotated[list[WarningRead], Field(max_length=100)] = Field(default_factory=list)


class EvaluateSpec(Response):
    """The request of an `evaluate` job."""

    model_id: str
    dataset_id: str
    split: EvaluatedSplit
