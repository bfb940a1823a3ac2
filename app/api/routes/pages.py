"""`GET /`, and the pages of the error codes: HTML for browsers, JSON for everybody else. Open without a key.

The texts are those of `app/error_codes.py`. Imports no services; runs on the event loop.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from app import __version__
from app.api.openapi import problems
from app.api.page_layout import CONTENT_SECURITY_POLICY, error_page, errors_page, service_page
from app.api.responses import select_media_type
from app.error_codes import ERROR_PAGES, ErrorCode, problem_type
from app.errors import NotFound
from app.schemas.pages import ErrorCodeRead, ErrorCodesRead, ServiceLinks, ServiceRead
from app.schemas.response_docs import JSON

router = APIRouter(tags=["service"])

_HTML = "text/html"
_ANSWERS = {**dict.fromkeys(("", "*/*", "application/*", JSON), JSON), **dict.fromkeys(("text/*", _HTML), _HTML)}
_SERVICE = ServiceRead(
    name="Foxhound",
    version=__version__,
    description="From a prompt to a trained image classifier.",
    links=ServiceLinks(
        documentation="/docs",
        openapi="/openapi.json",
        errors=ERROR_PAGES,
        capabilities="/capabilities",
        ready="/readyz",
    ),
)
_CODES = ErrorCodesRead(
    items=[
        ErrorCodeRead(code=code, statuses=code.statuses, meaning=code.meaning, url=problem_type(code))
        for code in ErrorCode
    ]
)
_BY_CODE = {read.code.value: read for read in _CODES.items}


def _json_or_page(description: str) -> dict[int | str, dict[str, Any]]:
    content = {_HTML: {"schema": {"type": "string", "contentMediaType": _HTML}}}
    return {200: {"description": description, "content": content}, **problems(406)}


@router.get(
    "/",
    summary="Describe the service",
    response_model=ServiceRead,
    responses={
        **_json_or_page("Name, version and links, as JSON or as a page if `Accept` asks for one, as browsers do."),
        307: {"description": "Instead of the page, if the node serves its console."},
    },
)
async def describe_service(request: Request) -> Any:
    """Return what this service is, and where its documentation is."""
    asked = select_media_type(request.headers.get("accept", "*/*"), _ANSWERS)
    if asked == _HTML and request.app.state.settings.ui:
        return RedirectResponse("/ui", headers={"Vary": "Accept"})
    return _answer(request, _SERVICE, service_page(_SERVICE))


@router.get(
    ERROR_PAGES,
    summary="List error codes",
    response_model=ErrorCodesRead,
    responses=_json_or_page("The codes, as JSON or as a page if `Accept` asks for one, as browsers do."),
)
async def list_error_codes(request: Request) -> Any:
    """Return every `code` of a problem with its meaning."""
    return _answer(request, _CODES, errors_page(_CODES))


@router.get(
    f"{ERROR_PAGES}/{{code}}",
    summary="Explain an error code",
    response_model=ErrorCodeRead,
    responses={
        **_json_or_page("The code, as JSON or as a page if `Accept` asks for one, as browsers do."),
        **problems(404),
    },
)
async def get_error_code(
    code: Annotated[str, Path(max_length=64, pattern=r"^[a-z0-9_]+$", description="The `code` of a problem.")],
    request: Request,
) -> Any:
    """Return what a `code` means; the `type` of every problem is the path of this page."""
    read = _BY_CODE.get(code)
    if read is None:
        raise NotFound(f"There is no such error code. {ERROR_PAGES} lists all of them.")
    return _answer(request, read, error_page(read))


def _answer(request: Request, read: ServiceRead | ErrorCodesRead | ErrorCodeRead, page: str) -> Response:
    if select_media_type(request.headers.get("accept", "*/*"), _ANSWERS) == JSON:
        return JSONResponse(read.model_dump(mode="json"), headers={"Vary": "Accept"})
    return HTMLResponse(page, headers={"Vary": "Accept", "Content-Security-Policy": CONTENT_SECURITY_POLICY})
