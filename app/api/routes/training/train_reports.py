"""Routes of train jobs' reports. They run on the event loop; the service computes in the reports' pool."""

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from app.api.access.ids import TrainJobId
from app.api.deps import CONDITIONAL, ServicesDep
from app.api.openapi import problems
from app.api.responses import bytes_type, not_modified, select_media_type
from app.api.serving.disconnects import unless_left
from app.schemas.response_docs import BYTES, JSON, UNCHANGED, binary, headers
from app.schemas.train_reports import PictureName, TrainReportRead
from app.services.evaluation.report.page import CONTENT_SECURITY_POLICY

router = APIRouter(prefix="/train-jobs/{job_id}/report", tags=["training"])

_ERRORS = problems(404, 409, 503)
_HTML = "text/html"
# The response type for each media type in `Accept`.
_ANSWERS = {**dict.fromkeys(("", "*/*", "application/*", JSON), JSON), **dict.fromkeys(("text/*", _HTML), _HTML)}
_VALIDATED = headers("ETag", "Cache-Control")
# Charts have no text of a client's choosing that a browser could run, and are sandboxed all the same.
_SANDBOX = {"Content-Security-Policy": "default-src 'none'; sandbox"}


@router.get(
    "",
    summary="Read a train job's report",
    response_model=TrainReportRead,
    responses={
        200: {
            "description": "The report as JSON, or as an HTML page if `Accept` asks for one, as browsers do.",
            "content": {_HTML: {"schema": {"type": "string", "contentMediaType": _HTML}}},
            "headers": _VALIDATED,
        },
        304: UNCHANGED,
        **_ERRORS,
        **problems(406),
    },
    dependencies=[CONDITIONAL],
)
async def get_train_report(
    job_id: TrainJobId,
    request: Request,
    services: ServicesDep,
) -> Any:
    """Return curves, metrics by source of the images, baselines, mistakes, warnings and lineage of a train job.

    The page is self-contained: charts, thumbnails and style are inside. Jobs that have not succeeded have no report,
    and deleting the model deletes it. Sections that the release which trained the model did not record are empty.
    """
    if select_media_type(request.headers.get("accept", "*/*"), _ANSWERS) == JSON:
        report = await unless_left(request, services.train_reports.report(job_id))
        return _answer(request, report.model_dump_json().encode(), JSON, {"Vary": "Accept"})
    page = await unless_left(request, services.train_reports.page(job_id))
    policy = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Referrer-Policy": "no-referrer"}
    return _answer(request, page.encode(), _HTML, {"Vary": "Accept", **policy})


@router.get(
    "/{picture}.png",
    summary="Read a chart of a train job's report",
    response_class=Response,
    responses={
        200: {"description": "The chart.", "content": binary("image/png", BYTES), "headers": _VALIDATED},
        304: UNCHANGED,
        **_ERRORS,
    },
    dependencies=[CONDITIONAL],
)
async def get_train_report_picture(
    job_id: TrainJobId, picture: Annotated[PictureName, Path()], request: Request, services: ServicesDep
) -> Response:
    """Return one chart, dark on white, at twice the size of the page's; 404 if the report has no figures for it."""
    data = await unless_left(request, services.train_reports.picture(job_id, picture))
    return _answer(request, data, bytes_type(request, "image/png"), {"Vary": "Accept", **_SANDBOX})


def _answer(request: Request, body: bytes, media_type: str, more: dict[str, str]) -> Response:
    """Return the body with a validator, or 304 if the client has it already."""
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    fields = {"ETag": etag, "Cache-Control": "private, no-cache", **more}
    return not_modified(request, fields) or Response(body, headers=fields, media_type=media_type)
