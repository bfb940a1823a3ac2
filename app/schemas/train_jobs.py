"""Request and response models of train jobs. Imports no services; pure."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from app.schemas.common import Name, Page, Request, ResourceId, Response, Seed, Storable, UtcTime, exactly_one, given
from app.schemas.datasets import DatasetCreate
from app.schemas.generations import WarningRead
from app.schemas.heads import (
    AugmentCreate,
    EarlyStoppingCreate,
    FineTuneMode,
    HeadCreate,
    OptimizerSettings,
    ValidationCreate,
)
from app.schemas.job_specs import TrainSpec
from app.schemas.problems import JobError
from app.schemas.progress import JobStatus, Progress

# Members that a preset sets.
_PRESET = ("head", "optimizer", "validation", "early_stopping", "augment")
_TWO_SOLVERS = {"allOf": [given("head"), given("optimizer")]}
_PRESET_AND_MORE = {"allOf": [given("preset"), {"anyOf": [given(name) for name in (*_PRESET, "fine_tune")]}]}


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
    preset: Literal["from_prompts"] | None = Field(
        None,
        description="`from_prompts` trains on generated images for pictures that no model made: prompts in the words "
        "of the pack, views of each image by other hands, features of `resnet18`, `photo` and `clip` together, and "
        "CLIP's knowledge of the class names. The dataset's own `preset` is set too, and its classes need no prompts.",
    )
    method: Literal["linear_probe"] = "linear_probe"
    epochs: Annotated[int, Field(strict=True, ge=1, le=1_000)] = 10
    batch_size: Annotated[int, Field(strict=True, ge=1, le=4_096)] = 16
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    head: HeadCreate | None = Field(
        None,
        description="How the head is trained; default: SGD with `optimizer`, or `prototypes` where a class has at most "
        "16 training images, the backbone knows photographs, and the request has no setting of a solver.",
    )
    validation: ValidationCreate | None = Field(
        None,
        description="Default: none, or a fifth where a sweep or early stopping needs one. Ignored, with a warning, "
        "where the dataset has a split `validation`: that split is then used as it is.",
    )
    early_stopping: EarlyStoppingCreate | None = None
    augment: AugmentCreate | None = None
    fine_tune: FineTuneMode | None = Field(
        None,
        description="Trains further with augmented pictures, starting from the head above. `epochs` (default 4, at "
        "most 100), `batch_size` (at most 128) and `early_stopping` are then those of the fine-tuning. Takes minutes "
        "on a CPU; only for backbones that are one network of timm or torchvision.",
    )
    seed: Seed = 0
    allow_incomplete: Annotated[bool, Field(strict=True)] = Field(
        False, description="Train even if images are missing; every class needs at least one training image."
    )

    model_config = ConfigDict(
        json_schema_extra={
            **exactly_one("dataset_id", "dataset", never=[_TWO_SOLVERS, _PRESET_AND_MORE]),
            "examples": [
                {
                    "dataset": {
                        "name": "fox-dog-small",
                        "classes": [
                            {"name": "fox", "prompts": ["a watercolor painting of a red fox"]},
                            {"name": "dog", "prompts": ["a watercolor painting of a golden retriever"]},
                        ],
                        "train_per_class": 10,
                        "test_per_class": 5,
                        "generation": {"num_inference_steps": 20},
                    },
                    "name": "fox-or-dog",
                    "epochs": 10,
                }
            ],
        }
    )

    @model_validator(mode="before")
    @classmethod
    def _preset_of_dataset(cls, values: Any) -> Any:
        """Give the dataset the job's preset, so that its classes may come without prompts."""
        dataset = values.get("dataset") if isinstance(values, dict) else None
        if isinstance(dataset, dict) and values.get("preset") == "from_prompts":
            return {**values, "dataset": {"preset": "from_prompts", **dataset}}
        return values

    @model_validator(mode="after")
    def _one_dataset(self) -> "TrainJobCreate":
        if (self.dataset_id is None) == (self.dataset is None):
            raise PydanticCustomError("one_dataset", "Give exactly one of dataset_id and dataset.")
        return self

    @model_validator(mode="after")
    def _one_solver(self) -> "TrainJobCreate":
        if self.head is not None and "optimizer" in self.model_fields_set:
            raise PydanticCustomError("one_solver", "Give head or optimizer, not both.")
        return self

    @model_validator(mode="after")
    def _one_recipe(self) -> "TrainJobCreate":
        is_given = any(getattr(self, name) is not None for name in self.model_fields_set.intersection(_PRESET))
        if self.preset is not None and is_given:
            raise PydanticCustomError("one_recipe", "The preset has its own head and views; leave these out.")
        if self.preset is not None and self.fine_tune is not None:
            raise PydanticCustomError("one_recipe", "The preset combines backbones, which cannot be fine-tuned.")
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
    validation_loss: float | None = Field(None, description="Null without validation images.")
    validation_accuracy: float | None = None


class TrainJobSummary(Response):
    """A train job as lists return it."""

    id: str
    name: str = Field(description="The model's name. A failed or cancelled job frees it for another job.")
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


class TrainJobPage(Page[TrainJobSummary]):
    """A page of train jobs, newest first."""


class TrainJobRead(TrainJobSummary):
    """A train job with its request and its epochs so far."""

    spec: TrainSpec
    warnings: list[WarningRead] = Field(
        description="What to know about the settings and, once the job has succeeded, about the model and its test."
    )
    epochs: list[EpochRead]
