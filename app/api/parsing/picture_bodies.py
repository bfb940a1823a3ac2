"""Reads bodies with pictures, as JSON or as multipart forms, into one request model.

A form becomes the same JSON, its files in base64, before anything reads it: so validation, idempotency keys and every
kind of answer treat both alike. Runs on the event loop; large files are encoded on a thread. Imports no routes.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile

from app.api.parsing.forms import media_type_of, no_such_file, open_form, text_fields
from app.api.parsing.json_bodies import JsonBounds, JsonRoute, ReadRequest, parse_json
from app.api.serving.accepted_work import IS_CHARGED
from app.error_codes import ErrorCode
from app.errors import FieldError, Invalid

# Two pictures in base64 and little else; in a form two files of 20 MB.
JSON_BYTES = 30_000_000
PICTURES_BODY = 42_000_000
JSON_BOUNDS = JsonBounds(num_bytes=JSON_BYTES, num_values=16_384, num_members=2_048)
# Of the JSON that a form becomes: base64 takes four bytes for three.
_FORM_BOUNDS = JsonBounds(num_bytes=PICTURES_BODY * 4 // 3 + 100_000, num_values=16_384, num_members=2_048)

FILES = ("init_image", "mask")
_LISTS = ("labels",)
# Fields whose value is the text itself; the others are written as in JSON.
_TEXTS = frozenset(
    {"prompt", "negative_prompt", "scheduler", "output_format", "speed", "timestep_spacing", "response_format", "model"}
    | {"labels"}
)


class PictureRoute(JsonRoute):
    """A route whose JSON body may hold pictures, and may come as a form with files."""

    def json_bounds(self) -> JsonBounds:
        """Return the limits of a JSON body."""
        return JSON_BOUNDS

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's handler, which takes forms too."""
        handle_json = super().get_route_handler()
        handle, model = self.plain_handler(), self.body_model()
        if model is None:
            return handle

        async def read_and_handle(request: Request) -> Response:
            if media_type_of(request) != "multipart/form-data":
                return await handle_json(request)
            setattr(request.state, IS_CHARGED, True)
            return await handle(await _read_form(request, model))

        return read_and_handle


async def _read_form(request: Request, model: type[BaseModel]) -> Request:
    async with open_form(request, max_files=len(FILES)) as form:
        files = {name: await part.read() for name, part in _files(form).items()}
        values = _values(text_fields(form, _LISTS, files=FILES))
    body = await asyncio.to_thread(_as_json, values, files)
    value = await parse_json(request, body, model, _FORM_BOUNDS)
    return ReadRequest(_with_json(request), body, value)


def _with_json(request: Request) -> Request:
    """Return the request with the media type of the JSON that its form became."""
    headers = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
    scope = {**request.scope, "headers": [*headers, (b"content-type", b"application/json")]}
    return Request(scope, request.receive)


def _files(form: FormData) -> dict[str, UploadFile]:
    """Return the files by their fields.

    Raises:
        Invalid: A file is in another field, or a field has several.
    """
    found: dict[str, UploadFile] = {}
    for name, part in form.multi_items():
        if not isinstance(part, UploadFile):
            continue
        if name not in FILES:
            raise no_such_file(name, "Send the files in the fields `init_image` and `mask`.")
        if name in found:
            detail = "This field is given twice. Send it once."
            raise Invalid(detail, errors=[FieldError(f"#/{name}", detail, ErrorCode.REPEATED_FIELD)])
        found[name] = part
    return found


def _values(texts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if name in _TEXTS else _plain(value) for name, value in texts.items()}


def _plain(text: Any) -> Any:
    """Return a form's text as the JSON value that it is; the model's strict fields refuse other texts."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return text


def _as_json(values: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    pictures = {name: {"image_b64": base64.b64encode(data).decode()} for name, data in files.items()}
    return json.dumps({**values, **pictures}).encode()
