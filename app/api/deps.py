"""Dependencies of the routes: the services, which `main` creates once, and common path and query parameters.

Routes use them on the event loop and on its worker threads.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request
from pydantic import Field

from app.access.visibility import Visibility
from app.schemas.common import MAX_LABEL_CHARS, Split, Storable
from app.services.datasets.exports.service import DatasetExportService
from app.services.datasets.extension import DatasetExtensionService
from app.services.datasets.service import DatasetService
from app.services.datasets.uploads import UploadService
from app.services.evaluation.report.service import TrainReportService
from app.services.evaluation.service import EvaluationService
from app.services.generations.service import GenerationService
from app.services.images.service import ImageService
from app.services.inference.service import Inference
from app.services.inference.status import NodeStatus
from app.services.jobs.events import JobEvents
from app.services.jobs.service import JobService
from app.services.reports.service import DatasetReportService
from app.services.scoring import JudgingService
from app.services.thread_pools import Pools
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
    images: ImageService
    judging: JudgingService
    datasets: DatasetService
    extensions: DatasetExtensionService
    uploads: UploadService
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


def get_services(request: Request) -> Services:
    """Return the services from the application's state, where `main` has put them."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]
# A malformed id gets the same answer as an unknown one: 404.
Id = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9-]+$", description="Opaque id.")]
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


# Headers that file routes read from the request themselves: declared here, so that clients know them. A cache may know
# a hundred ETags of 66 characters.
_Declared = Annotated[str, Field(max_length=8_000)]
_ETAG = "An ETag; if the answer still has it, 304 without a body."
_RANGE = "A part of the file, e.g. `bytes=1000-`."
_IF_RANGE = "An ETag; if the file has another one by now, the whole file is sent."


def _declare_conditional(if_none_match: Annotated[_Declared | None, Header(description=_ETAG)] = None) -> None:
    pass


def _declare_ranged(
    range_: Annotated[_Declared | None, Header(alias="range", description=_RANGE)] = None,
    if_range: Annotated[_Declared | None, Header(description=_IF_RANGE)] = None,
) -> None:
    pass


CONDITIONAL, RANGED = Depends(_declare_conditional), Depends(_declare_ranged)
