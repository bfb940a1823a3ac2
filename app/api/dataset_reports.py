"""What is to be said of a dataset: its report and its contact sheet."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api.deps import Id, ServicesDep
from app.api.generate import unless_left
from app.api.openapi import problems
from app.schemas.reports import DatasetReportRead, FirstClass, MaxImages, NearDuplicateCosine, SheetColumns

router = APIRouter(prefix="/datasets/{dataset_id}", tags=["datasets"])

MaxImagesQuery = Annotated[MaxImages, Query()]
_ERRORS = problems(404, 409, 422, 503, 507)
_PNG = {"image/png": {"schema": {"type": "string", "contentMediaType": "image/png"}}}


@router.get("/report", summary="Read a dataset's report", responses=_ERRORS)
async def get_dataset_report(
    dataset_id: Id,
    request: Request,
    services: ServicesDep,
    max_images: MaxImagesQuery = 2_000,
    near_duplicate_cosine: Annotated[NearDuplicateCosine, Query()] = 0.99,
) -> DatasetReportRead:
    """Counts, what CLIP and the pretrained classifier say of the images, near-duplicates, leakage, best and worst.

    Every image is judged once, behind everything that somebody waits for: the first report takes as long as the models
    need for its images. A client that leaves stops it; what is learnt by then is kept, and the next request goes on.
    """
    made = services.reports.report(dataset_id, max_images=max_images, near_duplicate_cosine=near_duplicate_cosine)
    return await unless_left(request, made)


@router.get(
    "/contact-sheet.png",
    summary="Read a dataset's contact sheet",
    response_class=Response,
    responses={200: {"description": "The sheet.", "content": _PNG}, **_ERRORS},
)
async def get_dataset_contact_sheet(
    dataset_id: Id,
    request: Request,
    services: ServicesDep,
    max_images: MaxImagesQuery = 2_000,
    columns: Annotated[SheetColumns, Query()] = 8,
    first_class: Annotated[FirstClass, Query()] = 0,
) -> Response:
    """A row for each class: the best image by CLIP (green), the worst (red), then others by their files' hashes.

    Images are judged, chosen and kept as for the report.
    """
    made = services.reports.contact_sheet(dataset_id, max_images=max_images, columns=columns, first_class=first_class)
    headers = {"Content-Security-Policy": "default-src 'none'; sandbox"}
    return Response(await unless_left(request, made), media_type="image/png", headers=headers)
