"""What every job has, of whichever kind: status, priority and progress. Imports no services; pure."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from app.schemas.common import Response, UtcTime

JobStatus = TypeAliasType("JobStatus", Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"])
JobKind = TypeAliasType(
    "JobKind",
    Annotated[
        Literal["generate", "dataset", "repair", "train", "evaluate"],
        Field(description="What a job does; later versions may add kinds."),
    ],
)
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
