"""Routes of train jobs' reports. They run on the event loop; the service computes in the reports' pool."""

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from app.api.access.ids import TrainJobId
from app.api.deps import ServicesDep
from app.api.disconnects import unless_left
from app.api.openapi import problems
from app.api.responses import not_modified, select_media_type
from app.schemas.train_reports import TrainReportRead
from app.services.evaluation.report.page import CONTENT_SECURITY_POLICY
from app.services.evaluation.report.service import PictureName

router = APIRouter(prefix="/train-jobs/{job_id}/report", tags=["training"])

_ERRORS = problems(404, 409, 503)
_JSON, _HTML = "application/json", "text/html"
# The response type for each media type in `Accept`.
_ANSWERS = {**dict.fromkeys(("", "*/*", "application/*", _JSON), _JSON), **dict.fromkeys(("text/*", _HTML), _HTML)}
_ACCEPT = "`text/html` returns a page, as browsers request it; the first supported type is used."
_PNG = {"image/png": {"schema": {"type": "string", "contentMediaType": "image/png"}}}
_UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "Not modified: `If-None-Match` contains the current ETag."}
}
# Charts have no text of a client's choosing that a browser could run, and are sandboxed all the same.
_SANDBOX = {"Content-Security-Policy": "default-src 'none'; sandbox"}


@router.get(
    "",
    summary="Read a train job's report",
    response_model=TrainReportRead,
    responses={
        200: {
            "description": "The report as JSON or as an HTML page.",
            "content": {_HTML: {"schema": {"type": "string", "contentMediaType": _HTML}}},
        },
        **_UNCHANGED,
        **_ERRORS,
        **problems(406),
    },
)
async def get_train_report(
    job_id: TrainJobId,
    request: Request,
    services: ServicesDep,
    accept: Annotated[str, Header(max_length=500, description=_ACCEPT)] = "*/*",
) -> Any:
    """Return curves, metrics by source of the images, baselines, mistakes, warnings and lineage of a train job.

    The page is self-contained: charts, thumbnails and style are inside. Jobs that have not succeeded have no report,
    and deleting the model deletes it. Sections that the release which trained the model did not record are empty.
    """
    if select_media_type(accept, _ANSWERS) == _JSON:
        report = await unless_left(request, services.train_reports.report(job_id))
        return _answer(request, report.model_dump_json().encode(), _JSON, {"Vary": "Accept"})
    page = await unless_left(request, services.train_reports.page(job_id))
    policy = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Referrer-Policy": "no-referrer"}
    return _answer(request, page.encode(), _HTML, {"Vary": "Accept", **policy})


@router.get(
    "/{picture}.png",
    summary="Read a chart of a train job's report",
    response_class=Response,
    responses={200: {"description": "The chart.", "content": _PNG}, **_UNCHANGED, **_ERRORS},
)
async def get_train_report_picture(
    job_id: TrainJobId, picture: PictureName, request: Request, services: ServicesDep
) -> Response:
    """Return one chart, dark on white, at twice the size of the page's; 404 if the report has no figures for it."""
    data = await unless_left(request, services.train_reports.picture(job_id, picture))
    return _answer(request, data, "image/png", _SANDBOX)


def _answer(request: Request, body: bytes, media_type: str, more: dict[str, str]) -> Response:
    """Return the body with a validator, or 304 if the client has it already."""
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", **more}
    return not_modified(request, headers) or Response(body, headers=headers, media_type=media_type)
