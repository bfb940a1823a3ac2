"""Response models of background jobs, one for each kind. Imports no services; pure.

`kind` decides what `spec` and `result` are, so a job is a union that it discriminates. Rows may be older than this
release: a `spec` or `result` has defaults for what earlier releases did not write.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError, WrapValidator
from typing_extensions import TypeAliasType

from app.schemas.common import Page, Response, UtcTime
from app.schemas.job_specs import DatasetSpec, EvaluateSpec, GenerateSpec, RepairSpec, TrainJobSpec
from app.schemas.problems import JobError
from app.schemas.progress import JobStatus, Priority, Progress

# The images that the result of a repair names, of each sort.
MAX_NAMED = 1_000


def _or_null(value: Any, validate: Callable[[Any], Any]) -> Any:
    try:
        return validate(value)
    except ValidationError:
        return None


# A result in a form that this release does not know is null; it must not make lists of jobs unreadable.
_Readable = WrapValidator(_or_null)


class GenerateResult(Response):
    """The result of a `generate` job."""

    generation_id: str = Field(description="Its images: `GET /generations/{generation_id}`.")


class DatasetResult(Response):
    """The result of a `dataset` job."""

    dataset_id: str
    num_images: int = Field(description="Images that the job was to make and that are there.")
    num_missing: int = Field(0, description="Slots that stayed empty.")


class UnrestoredImage(Response):
    """An image whose file a repair could not restore byte by byte."""

    image_id: str
    path: str = Field(description="Relative to the data folder.")
    code: str = Field(description="Why: `image_file_missing`, `image_file_damaged`, `image_differs`, ...")


class RedrawnImage(UnrestoredImage):
    """A lost image that was replaced by a new one."""

    new_image_id: str


class RepairResult(Response):
    """The result of a `repair` job."""

    dataset_id: str
    num_checked: int
    num_restored: int
    num_redrawn: int
    num_unrestored: int
    redrawn: Annotated[list[RedrawnImage], Field(max_length=MAX_NAMED)] = Field(description="The first of them.")
    unrestored: Annotated[list[UnrestoredImage], Field(max_length=MAX_NAMED)] = Field(description="The first of them.")


class TrainResult(Response):
    """The result of a `train` job."""

    model_id: str


class EvaluateResult(Response):
    """The result of an `evaluate` job."""

    evaluation_id: str


class _Job(Response):
    """What jobs of every kind have."""

    id: str
    status: JobStatus
    version: int = Field(ge=1, description="Grows with every change; used as the id of the job's events.")
    priority: Priority
    retry_of: str | None = Field(description="The job that this one retries.")
    request_id: str | None = Field(
        None,
        description="`X-Request-Id` of the request that made the job; the lines of the log that concern it have it.",
    )
    progress: Progress
    error: JobError | None = Field(description="Why it failed; null unless it has.")
    attempts: int = Field(ge=0, description="How often a worker has started it; more than 1 after a crash.")
    created_at: UtcTime
    started_at: UtcTime | None
    finished_at: UtcTime | None


class JobPlace(NamedTuple):
    """How many requests to the engine go before an image of a job under way; the `position` of its events."""

    position: int


class JobPreview(Response):
    """What an image of a job under way will look like."""

    image: int = Field(ge=0, le=15, description="Which of the job's images, from 0.")
    step: int = Field(ge=1, description="The denoising step that predicts this.")
    steps: int = Field(ge=1, description="Steps of the image that run the model.")
    preview_png_b64: str = Field(description="A PNG, 1/8 of the image's width and height.")


class GenerateJobSummary(_Job):
    """A job that makes the images of one request."""

    kind: Literal["generate"] = "generate"
    result: Annotated[GenerateResult | None, _Readable] = Field(description="Null until it has succeeded.")
    preview: JobPreview | None = Field(None, description="In events alone, of a request with `preview`; else null.")
    position: int | None = Field(
        None,
        ge=0,
        description="In events alone, while an image of the job waits: requests to this node's engine that go before "
        "it, as in `queued` events of `/generate/events`; else null.",
    )


class DatasetJobSummary(_Job):
    """A job that makes the images of a dataset."""

    kind: Literal["dataset"] = "dataset"
    result: Annotated[DatasetResult | None, _Readable] = Field(description="Null until it has succeeded.")


class RepairJobSummary(_Job):
    """A job that checks the files of a dataset and restores lost ones."""

    kind: Literal["repair"] = "repair"
    result: Annotated[RepairResult | None, _Readable] = Field(description="Null until it has succeeded.")


class TrainJobState(_Job):
    """A job that trains a classifier; `/train-jobs/{job_id}` has its epochs too."""

    kind: Literal["train"] = "train"
    result: Annotated[TrainResult | None, _Readable] = Field(description="Null until it has succeeded.")


class EvaluateJobSummary(_Job):
    """A job that evaluates a model."""

    kind: Literal["evaluate"] = "evaluate"
    result: Annotated[EvaluateResult | None, _Readable] = Field(description="Null until it has succeeded.")


class GenerateJob(GenerateJobSummary):
    """A job that makes the images of one request, with that request."""

    spec: GenerateSpec


class DatasetJob(DatasetJobSummary):
    """A job that makes the images of a dataset, with its request."""

    spec: DatasetSpec


class RepairJob(RepairJobSummary):
    """A job that checks the files of a dataset, with its request."""

    spec: RepairSpec


class TrainJob(TrainJobState):
    """A job that trains a classifier, with its request."""

    spec: TrainJobSpec


class EvaluateJob(EvaluateJobSummary):
    """A job that evaluates a model, with its request."""

    spec: EvaluateSpec


JobSummary = TypeAliasType(
    "JobSummary",
    Annotated[
        GenerateJobSummary | DatasetJobSummary | RepairJobSummary | TrainJobState | EvaluateJobSummary,
        Field(discriminator="kind", description="A background job as lists and events return it."),
    ],
)
JobRead = TypeAliasType(
    "JobRead",
    Annotated[
        GenerateJob | DatasetJob | RepairJob | TrainJob | EvaluateJob,
        Field(discriminator="kind", description="A background job with its request."),
    ],
)


class JobPage(Page[JobSummary]):
    """A page of jobs, newest first."""
