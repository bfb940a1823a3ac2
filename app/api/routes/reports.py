"""Routes of a dataset's report and contact sheet. They run on the event loop; the services compute on their threads."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse, Response

from app.api.access.ids import CallerDep, DatasetId
from app.api.deps import ServicesDep
from app.api.openapi import problems
from app.api.responses import bytes_type, select_media_type
from app.api.serving.disconnects import unless_left
from app.schemas.reports import DatasetReportRead, FirstClass, MaxImages, NearDuplicateCosine, SheetColumns
from app.schemas.response_docs import BYTES, JSON, binary
from app.services.reports.html import CONTENT_SECURITY_POLICY

router = APIRouter(prefix="/datasets/{dataset_id}", tags=["datasets"])

MaxImagesQuery = Annotated[MaxImages, Query()]
_ERRORS = problems(404, 409, 422, 503, 507)
_HTML = "text/html"
# The response type for each media type in `Accept`.
_ANSWERS = {**dict.fromkeys(("", "*/*", "application/*", JSON), JSON), **dict.fromkeys(("text/*", _HTML), _HTML)}
_VARY = {"Vary": "Accept"}


@router.get(
    "/report",
    summary="Read a dataset's report",
    response_model=DatasetReportRead,
    responses={
        200: {
            "description": "The report as JSON, or as an HTML page if `Accept` asks for one, as browsers do.",
            "content": {_HTML: {"schema": {"type": "string", "contentMediaType": _HTML}}},
        },
        **_ERRORS,
        **problems(406),
    },
)
async def get_dataset_report(
    dataset_id: DatasetId,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    max_images: MaxImagesQuery = 2_000,
    near_duplicate_cosine: Annotated[NearDuplicateCosine | None, Query()] = None,
) -> Any:
    """Return counts, figures from CLIP and the pretrained classifier, near-duplicates, leakage, best and worst images.

    Each image is judged once, with lower priority than interactive requests, so the first report takes as long as the
    models need for its images. If the client disconnects, the judging stops; its results are kept, and the next request
    continues from there.
    """
    reports, cosine = services.reports, near_duplicate_cosine
    if select_media_type(request.headers.get("accept", "*/*"), _ANSWERS) == JSON:
        figures = reports.report(dataset_id, max_images=max_images, near_duplicate_cosine=cosine, caller=caller.id)
        return Response((await unless_left(request, figures)).model_dump_json(), media_type=JSON, headers=_VARY)
    made = reports.page(
        dataset_id, max_images=max_images, near_duplicate_cosine=cosine, images="../../images/", caller=caller.id
    )
    page = await unless_left(request, made)
    headers = {**_VARY, "Content-Security-Policy": CONTENT_SECURITY_POLICY, "Referrer-Policy": "no-referrer"}
    return HTMLResponse(page, headers=headers)


@router.get(
    "/contact-sheet.png",
    summary="Read a dataset's contact sheet",
    response_class=Response,
    responses={200: {"description": "The sheet.", "content": binary("image/png", BYTES)}, **_ERRORS},
)
async def get_dataset_contact_sheet(
    dataset_id: DatasetId,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    max_images: MaxImagesQuery = 2_000,
    columns: Annotated[SheetColumns, Query()] = 8,
    first_class: Annotated[FirstClass, Query()] = 0,
) -> Response:
    """Return a row of images for each class: the best by CLIP (green), the worst (red), others by the file's hash.

    Images are selected and judged as for the report.
    """
    made = services.reports.contact_sheet(
        dataset_id, max_images=max_images, columns=columns, first_class=first_class, caller=caller.id
    )
    headers = {**_VARY, "Content-Security-Policy": "default-src 'none'; sandbox"}
    media_type = bytes_type(request, "image/png")
    return Response(await unless_left(request, made), media_type=media_type, headers=headers)
