"""Dependencies of the routes: the services, which `main` creates once, and common path and query parameters.

Routes use them on the event loop and on its worker threads.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from app.access.visibility import Visibility
from app.schemas.common import MAX_LABEL_CHARS, Split, Storable
from app.services.datasets.exports.service import DatasetExportService
from app.services.datasets.extension import DatasetExtensionService
from app.services.datasets.service import DatasetService
from app.services.datasets.uploads import UploadService
from app.services.evaluation.report.service import TrainReportService
from app.services.evaluation.service import EvaluationService
from app.services.generations.service import GenerationService
from app.services.generations.sheets import GenerationSheets
from app.services.images.embedding import EmbeddingService
from app.services.images.reviews import ReviewService
from app.services.images.service import ImageService
from app.services.images.sources import SourceService
from app.services.images.thumbnails import ThumbnailService
from app.services.inference.service import Inference
from app.services.inference.status import NodeStatus
from app.services.jobs.events import JobEvents
from app.services.jobs.service import JobService
from app.services.keys import KeyService
from app.services.process.thread_pools import Pools
from app.services.reports.service import DatasetReportService
from app.services.scoring.service import JudgingService
from app.services.training.exports.service import ModelExportService
from app.services.training.models import ModelService
from app.services.training.service import TrainJobService


@dataclass(frozen=True, slots=True)
class Services:
    """Every service of an API process."""

    pools: Pools
    status: NodeStatus
    inference: Inference
    generations: GenerationService
    sheets: GenerationSheets
    images: ImageService
    sources: SourceService
    thumbnails: ThumbnailService
    judging: JudgingService
    embeddings: EmbeddingService
    datasets: DatasetService
    extensions: DatasetExtensionService
    uploads: UploadService
    reviews: ReviewService
    exports: DatasetExportService
    reports: DatasetReportService
    train_jobs: TrainJobService
    models: ModelService
    model_exports: ModelExportService
    evaluations: EvaluationService
    train_reports: TrainReportService
    jobs: JobService
    events: JobEvents
    visibility: Visibility
    keys: KeyService


async def get_services(request: Request) -> Services:  # `async`, so that it does not run on a thread
    """Return the services from the application's state, where `main` has put them."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]
# A malformed id gets the same answer as an unknown one: 404.
Id = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9-]+$", description="Opaque id.")]
# A name never has the form of an id, so no text is both.
IdOrName = Annotated[
    str, Path(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Opaque id, or the unique name.")
]
DatasetIdQuery = Annotated[
    str | None, Query(alias="dataset_id", max_length=64, pattern=r"^[A-Za-z0-9-]+$", description="Id of a dataset.")
]
SplitQuery = Annotated[Split | None, Query(description="Of the dataset: all splits if it is left out.")]
ClassQuery = Annotated[
    Annotated[str, Field(max_length=MAX_LABEL_CHARS), Storable] | None,
    Query(alias="class", description="Name of a class."),
]
Limit = Annotated[int, Query(ge=1, le=100, description="Maximum number of items in the page.")]
Cursor = Annotated[
    str | None, Query(max_length=64, pattern=r"^[A-Za-z0-9_-]+$", description="`next_cursor` of the previous page.")
]


def _rfc3339(value: object) -> object:
    """Refuse other forms of time that pydantic reads, such as seconds since 1970; restore a `+` sent unescaped."""
    if isinstance(value, str):
        value = value.strip().replace(" ", "+")
        if not _TIME.match(value):
            raise PydanticCustomError("bad_time", "This must be a time like 2026-12-01T08:00:00Z.")
    return value


def _in_utc(value: datetime) -> datetime:
    """Return a time in UTC; the first and last days of the calendar stay in it."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        return (datetime.min if value.year == 1 else datetime.max).replace(tzinfo=UTC)


# A time with nanoseconds and an offset has 35.
_MAX_TIME_CHARS = 64
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}")
CreatedAfter = Annotated[
    Annotated[
        AwareDatetime,
        BeforeValidator(_rfc3339),
        AfterValidator(_in_utc),
        Field(json_schema_extra={"maxLength": _MAX_TIME_CHARS}),
    ]
    | None,
    Query(description="Only what was created after this time, in RFC 3339, e.g. `2026-12-01T08:00:00Z`."),
]
NameQuery = Annotated[
    str | None,
    Query(
        alias="name", max_length=63, pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="Only the one with this name."
    ),
]


# Headers that file routes read from the request themselves: declared here, so that clients know them. A cache may know
# a hundred ETags of 66 characters.
_Declared = Annotated[str, Field(max_length=8_000)]
_ETAG = "An ETag; if the answer still has it, 304 without a body."
_RANGE = "A part of the file, e.g. `bytes=1000-`."
_IF_RANGE = "An ETag; if the file has another one by now, the whole file is sent."


async def _declare_conditional(if_none_match: Annotated[_Declared | None, Header(description=_ETAG)] = None) -> None:
    pass


async def _declare_ranged(
    range_: Annotated[_Declared | None, Header(alias="range", description=_RANGE)] = None,
    if_range: Annotated[_Declared | None, Header(description=_IF_RANGE)] = None,
) -> None:
    pass


async def _bound_tags(if_none_match: Annotated[_Declared | None, Header(include_in_schema=False)] = None) -> None:
    pass


CONDITIONAL, RANGED = Depends(_declare_conditional), Depends(_declare_ranged)
# For all routes: reads of JSON get their tags in a layer, and are described with them by `app/api/openapi.py`.
BOUNDED_TAGS = Depends(_bound_tags)
