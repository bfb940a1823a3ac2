"""Background jobs."""

from typing import Any, Literal

from pydantic import Field

from app.schemas.common import Response, UtcTime
from app.schemas.problems import JobError

JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
JobKind = Literal["generate", "dataset", "train"]


class Progress(Response):
    """How much of the work is done."""

    done: int = Field(ge=0)
    total: int = Field(ge=0)
    unit: str = Field(description="What is counted, e.g. `images`.")


class JobRead(Response):
    """A piece of background work."""

    id: str
    kind: JobKind
    status: JobStatus
    progress: Progress
    spec: dict[str, Any] = Field(description="The request as accepted.")
    result: dict[str, Any] | None
    error: JobError | None
    attempts: int = Field(ge=0, description="How often a worker began it; more than 1 after a crash.")
    created_at: UtcTime
    started_at: UtcTime | None
    finished_at: UtcTime | None
