"""Training jobs and the models that they give."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from app.schemas.common import Name, Request, ResourceId, Response, Seed, UtcTime
from app.schemas.datasets import DatasetCreate
from app.schemas.jobs import JobStatus, Progress
from app.schemas.problems import JobError


class OptimizerSettings(Request):
    """SGD as in the practical."""

    name: Literal["sgd"] = "sgd"
    lr: Annotated[float, Field(strict=True, gt=0, le=10)] = 0.001
    momentum: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.9


class TrainJobCreate(Request):
    """A dataset, or the prompts for one, and how to train on it."""

    dataset_id: ResourceId | None = Field(None, description="A dataset that is `ready`; see `allow_incomplete`.")
    dataset: DatasetCreate | None = Field(None, description="Instead: a dataset to generate first.")
    name: Name | None = Field(None, description="The model's name; default: the dataset's name and a number.")
    backbone: Literal["resnet18"] = "resnet18"
    method: Literal["linear_probe"] = "linear_probe"
    epochs: Annotated[int, Field(strict=True, ge=1, le=1_000)] = 10
    batch_size: Annotated[int, Field(strict=True, ge=1, le=4_096)] = 16
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    seed: Seed = 0
    allow_incomplete: Annotated[bool, Field(strict=True)] = Field(
        False, description="Train though images are missing, if every class has at least one to train on."
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"dataset_id": "…", "name": "fox-or-dog"}]})

    @model_validator(mode="after")
    def _one_dataset(self) -> "TrainJobCreate":
        if (self.dataset_id is None) == (self.dataset is None):
            raise PydanticCustomError("one_dataset", "Give exactly one of dataset_id and dataset.")
        return self


class EpochRead(Response):
    """What one epoch gave."""

    epoch: int = Field(ge=1)
    train_loss: float
    train_accuracy: float = Field(ge=0, le=1)
    test_loss: float | None = Field(description="Null for a dataset without test images.")
    test_accuracy: float | None
    lr: float
    elapsed_ms: float


class TrainJobSummary(Response):
    """A train job as lists tell it."""

    id: str
    status: JobStatus
    progress: Progress
    dataset_id: str
    last_epoch: EpochRead | None = Field(description="The newest epoch; null before the first has ended.")
    model_id: str | None = Field(description="The trained model, once the job has succeeded.")
    error: JobError | None
    attempts: int
    created_at: UtcTime
    started_at: UtcTime | None
    finished_at: UtcTime | None


class TrainJobRead(TrainJobSummary):
    """A train job and its epochs so far."""

    spec: dict[str, Any] = Field(
        description="The request as accepted, without a dataset's prompts, which `/datasets/{dataset_id}/recipe` tells."
    )
    epochs: list[EpochRead]


class ModelSummary(Response):
    """A trained model as lists tell it: its classes, how well it does, and where it comes from."""

    id: str
    name: str
    created_at: UtcTime
    job_id: str
    dataset_id: str
    backbone: str
    backbone_sha256: str = Field(description="The backbone's weights; the model answers only with the same loaded.")
    classes: list[str]
    metrics: dict[str, Any] = Field(description="`train` and `test`: accuracy and macro F1.")
    lineage: dict[str, Any]
    sha256: str
    num_bytes: int


class ModelRead(ModelSummary):
    """A trained model with all that is known of how well it does."""

    metrics: dict[str, Any] = Field(
        description="`train` and `test`: accuracy, per-class precision and recall, confusion matrix (rows: true class)."
    )
