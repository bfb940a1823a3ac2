"""Request and response models of train jobs. Imports no services; pure."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from app.schemas.common import Name, Request, ResourceId, Response, Seed, Storable, UtcTime
from app.schemas.datasets import DatasetCreate
from app.schemas.generations import WarningRead
from app.schemas.jobs import JobStatus, Progress
from app.schemas.problems import JobError


class OptimizerSettings(Request):
    """Settings of the SGD optimizer."""

    name: Literal["sgd"] = "sgd"
    lr: Annotated[float, Field(strict=True, gt=0, le=10)] = 0.001
    momentum: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.9


class TrainJobCreate(Request):
    """A dataset, existing or to be generated, and the training settings."""

    dataset_id: ResourceId | None = Field(None, description="Id of a `ready` dataset; see `allow_incomplete`.")
    dataset: DatasetCreate | None = Field(None, description="Instead of `dataset_id`: a dataset to generate first.")
    name: Name | None = Field(None, description="The model's name; default: the dataset's name and a number.")
    backbone: Annotated[str, Field(strict=True, min_length=1, max_length=64), Storable] | None = Field(
        None,
        description="A name of `GET /backbones`; default: `photo` for a dataset with uploaded training images, else "
        "`resnet18`, the loaded pack's own.",
    )
    method: Literal["linear_probe"] = "linear_probe"
    epochs: Annotated[int, Field(strict=True, ge=1, le=1_000)] = 10
    batch_size: Annotated[int, Field(strict=True, ge=1, le=4_096)] = 16
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    seed: Seed = 0
    allow_incomplete: Annotated[bool, Field(strict=True)] = Field(
        False, description="Train even if images are missing; every class needs at least one training image."
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"dataset_id": "…", "name": "fox-or-dog"}]})

    @model_validator(mode="after")
    def _one_dataset(self) -> "TrainJobCreate":
        if (self.dataset_id is None) == (self.dataset is None):
            raise PydanticCustomError("one_dataset", "Give exactly one of dataset_id and dataset.")
        return self


class EpochRead(Response):
    """The metrics of one epoch."""

    epoch: int = Field(ge=1)
    train_loss: float
    train_accuracy: float = Field(ge=0, le=1)
    test_loss: float | None = Field(description="Null for a dataset without test images.")
    test_accuracy: float | None
    lr: float
    elapsed_ms: float


class TrainJobSummary(Response):
    """A train job as lists return it."""

    id: str
    status: JobStatus
    progress: Progress
    dataset_id: str
    last_epoch: EpochRead | None = Field(description="The latest epoch; null before the first has ended.")
    model_id: str | None = Field(description="Id of the trained model; null until the job has succeeded.")
    error: JobError | None
    attempts: int
    created_at: UtcTime
    started_at: UtcTime | None
    finished_at: UtcTime | None


class TrainJobRead(TrainJobSummary):
    """A train job with its request and its epochs so far."""

    spec: dict[str, Any] = Field(
        description="The accepted request, without a dataset's prompts; `/datasets/{dataset_id}/recipe` returns these."
    )
    warnings: list[WarningRead] = Field(description="What to know about the settings, found when they were accepted.")
    epochs: list[EpochRead]
