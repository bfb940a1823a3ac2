"""The services as routes receive them: made once in `main`, kept in the application's state."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Query, Request
from pydantic import Field

from app.schemas.common import Storable
from app.services.dataset_export import DatasetExportService
from app.services.dataset_extension import DatasetExtensionService
from app.services.dataset_repair import DatasetRepairService
from app.services.dataset_report import DatasetReportService
from app.services.datasets import DatasetService
from app.services.generation import GenerationService
from app.services.images import ImageService
from app.services.inference import Inference
from app.services.job_events import JobEvents
from app.services.jobs import JobService
from app.services.judging import JudgingService
from app.services.models import ModelService
from app.services.node_status import NodeStatus
from app.services.pools import Pools
from app.services.train_jobs import TrainJobService
from app.services.uploads import UploadService


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
    repairs: DatasetRepairService
    uploads: UploadService
    exports: DatasetExportService
    reports: DatasetReportService
    train_jobs: TrainJobService
    models: ModelService
    jobs: JobService
    events: JobEvents


def get_services(request: Request) -> Services:
    """Return what `main` put into the application's state."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]
# A path that cannot be an id is answered like one that is none: 404.
Id = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9-]+$", description="Opaque id.")]
DatasetIdQuery = Annotated[str | None, Query(alias="dataset_id", max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
ClassQuery = Annotated[
    Annotated[str, Field(max_length=200), Storable] | None, Query(alias="class", description="A class's name.")
]
Limit = Annotated[int, Query(ge=1, le=100, description="Items a page.")]
Cursor = Annotated[
    str | None, Query(max_length=64, pattern=r"^[A-Za-z0-9_-]+$", description="`next_cursor` of the page before.")
]
