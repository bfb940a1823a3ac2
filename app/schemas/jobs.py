"""Response models of background jobs. Imports no services; pure."""

from typing import Annotated, Any, Literal

from pydantic import Field

from app.schemas.common import Response, UtcTime
from app.schemas.problems import JobError

JobStatus = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
JobKind = Literal["generate", "dataset", "repair", "train", "evaluate"]
Priority = Annotated[int, Field(ge=-100, le=100, description="Queued jobs with a higher priority start first.")]


class Progress(Response):
    """Progress of a job."""

    done: int = Field(ge=0)
    total: int = Field(ge=0)
    unit: str = Field(description="Unit of `done` and `total`, e.g. `images`.")
    phase: str | None = Field(
        None,
        description="What a train job does now: `images`, `features`, `training`, `evaluation` or `report`; null for "
        "other jobs.",
    )
    rate_per_minute: float | None = Field(
        None,
        description="Units per minute, from the latest progress since the job last started; null while unknown.",
    )
    estimated_finish_at: UtcTime | None = Field(
        None,
        description="Estimated end at that rate; null while unknown. A time in the past: progress has stalled.",
    )


class JobSummary(Response):
    """A background job as lists and events return it."""

    id: str
    kind: JobKind
    status: JobStatus
    version: int = Field(ge=1, description="Grows with every change; used as the id of the job's events.")
    priority: Priority
    retry_of: str | None = Field(description="The job that this one retries.")
    request_id: str | None = Field(
        description="`X-Request-Id` of the request that made the job; the lines of the log that concern it have it."
    )
    progress: Progress
    result: dict[str, Any] | None
    error: JobError | None
    attempts: int = Field(ge=0, description="How often a worker has started it; more than 1 after a crash.")
    created_at: UtcTime
    started_at: UtcTime | None
    finished_at: UtcTime | None


class JobRead(JobSummary):
    """A background job with its request."""

    spec: dict[str, Any] = Field(
        description="The accepted request, without a dataset's prompts; `/datasets/{dataset_id}/recipe` returns these."
    )
