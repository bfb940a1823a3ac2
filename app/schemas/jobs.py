"""Background jobs."""

from typing import Annotated, Any, Literal

from pydantic import Field

from app.schemas.common import Response, UtcTime
from app.schemas.problems import JobError

JobStatus = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
JobKind = Literal["generate", "dataset", "repair", "train"]
Priority = Annotated[int, Field(ge=-100, le=100, description="Of the jobs that wait, the highest go first.")]


class Progress(Response):
    """How much of the work is done."""

    done: int = Field(ge=0)
    total: int = Field(ge=0)
    unit: str = Field(description="What is counted, e.g. `images`.")
    rate_per_minute: float | None = Field(
        None, description="Units a minute over the latest progress since the job last began; null while unknown."
    )
    estimated_finish_at: UtcTime | None = Field(
        None, description="If that rate lasts; null while unknown. A time that has passed: nothing came since."
    )


class JobSummary(Response):
    """A piece of background work as lists and events tell it."""

    id: str
    kind: JobKind
    status: JobStatus
    version: int = Field(ge=1, description="Grows with every change; the id of the job's events.")
    priority: Priority
    retry_of: str | None = Field(description="The failed or cancelled job that this one does again.")
    progress: Progress
    result: dict[str, Any] | None
    error: JobError | None
    attempts: int = Field(ge=0, description="How often a worker began it; more than 1 after a crash.")
    created_at: UtcTime
    started_at: UtcTime | None
    finished_at: UtcTime | None


class JobRead(JobSummary):
    """A piece of background work, and what it is to do."""

    spec: dict[str, Any] = Field(
        description="The request as accepted, without a dataset's prompts, which `/datasets/{dataset_id}/recipe` tells."
    )
