"""Reads multipart forms into the same request models as JSON bodies. Runs on the event loop; imports no routes."""

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from app.api.problems import invalid_of_validation
from app.error_codes import ErrorCode
from app.errors import FieldError, Invalid, Malformed
from app.schemas.judging import MAX_IMAGES
from app.services.scoring.service import Upload

Model = TypeVar("Model", bound=BaseModel)

MAX_FORM_FIELDS = 300
MAX_FORM_BYTES = 200_000_000
# 256 labels of 200 characters, quoted and escaped.
_MAX_ARRAY_CHARS = 400_000
# `7.0` is an integer, as in JSON.
_WHOLE = re.compile(r"[0-9]{1,9}(\.0{1,9})?")


def media_type_of(request: Request) -> str:
    """Return the body's media type in lower case, without parameters."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def read_form(request: Request, model: type[Model], *, lists: Sequence[str]) -> tuple[list[Upload], Model]:
    """Read a multipart form with images and fields.

    Args:
        request: The request, its body unread.
        model: Request model of the text fields.
        lists: Names of the fields that may be repeated.

    Raises:
        Malformed: The body is not a multipart form.
        Invalid: There is no image, there are both `image` and `images`, or a field is invalid.
    """
    async with open_form(request, max_files=MAX_IMAGES) as form:
        files = _files(form)
        if len({name for name, _ in files}) > 1:
            raise Invalid("Send one image as `image`, or several as `images`.", code=ErrorCode.ONE_IMAGE_SOURCE)
        uploads = [
            Upload(await part.read(), f"#/{name}" if name == "image" else f"#/{name}/{index}")
            for index, (name, part) in enumerate(files)
        ]
        fields = text_fields(form, lists, files=("image", "images"))
    if not uploads:
        detail = "An image file is missing. Send it as `image` or `images`."
        raise Invalid.field("#/image", detail, ErrorCode.ONE_IMAGE_SOURCE)
    return uploads, validate(model, fields)


@asynccontextmanager
async def open_form(request: Request, *, max_files: int) -> AsyncIterator[FormData]:
    """Read a multipart form and close its files at the end of the block; large files are spooled to disk.

    Raises:
        Malformed: The body is not a multipart form, or has too many parts.
    """
    try:
        form = await request.form(max_files=max_files, max_fields=MAX_FORM_FIELDS)
    except HTTPException as error:
        if error.status_code == 413:
            raise
        raise Malformed(
            "The multipart form cannot be read, or has too many parts.", code=ErrorCode.MALFORMED_FORM
        ) from None
    try:
        yield form
    finally:
        await form.close()


def validate(model: type[Model], value: Any) -> Model:
    """Validate a value against a model.

    Raises:
        Invalid: The value is invalid; every fault is listed, and no input is repeated.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid_of_validation(error, model) from None


def _files(form: FormData) -> list[tuple[str, UploadFile]]:
    found = []
    for name, part in form.multi_items():
        if isinstance(part, UploadFile):
            if name not in ("image", "images"):
                raise no_such_file(name, "Send the files in the field `image` or `images`.")
            found.append((name, part))
    return found


def no_such_file(name: str, detail: str) -> Invalid:
    """Return the error for a file in a field that does not exist, with the codes of an unknown field of JSON."""
    return Invalid(detail, errors=[FieldError(f"#/{name[:64]}", detail, ErrorCode.UNKNOWN_FIELD)])


def text_fields(form: FormData, lists: Sequence[str] = (), *, files: Sequence[str]) -> dict[str, Any]:
    """Return the text fields of a form.

    Args:
        form: The form.
        lists: Names of text fields that may be repeated.
        files: Names of fields that take files.

    Raises:
        Invalid: Another field is repeated, a field contains a JSON array, or a text is sent where a file belongs.
    """
    fields: dict[str, Any] = {}
    faults = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            continue
        if name in files:
            detail = "This must be a file, and is a text. Send it with a file name, as `curl -F field=@image.png` does."
            faults.append(FieldError(f"#/{name}", detail, ErrorCode.FILE_EXPECTED))
        elif name in lists and _is_json_array(value):
            detail = "A form does not accept a JSON array. Repeat the field, once for each value."
            faults.append(FieldError(f"#/{name}", detail, ErrorCode.JSON_IN_FORM))
        elif name in lists:
            fields.setdefault(name, []).append(value)
        elif name in fields:
            faults.append(
                FieldError(f"#/{name[:64]}", "This field is given twice. Send it once.", ErrorCode.REPEATED_FIELD)
            )
        else:
            fields[name] = _READERS[name](value) if name in _READERS else value
    if faults:
        raise Invalid(faults[0].detail, errors=faults)
    return fields


def _is_json_array(value: str) -> bool:
    """Return whether a form's text is a JSON array; a text above the length limit is not parsed."""
    if not value.strip().startswith("[") or len(value) > _MAX_ARRAY_CHARS:
        return False
    try:
        return isinstance(json.loads(value), list)
    except (ValueError, RecursionError):
        return False


def _number(value: str) -> int | str:
    """Return a form's text as an integer if it is one; the model's strict field refuses other texts."""
    return int(float(value)) if _WHOLE.fullmatch(value) else value


def _boolean(value: str) -> bool | str:
    """Return a form's text as a boolean if it is `true` or `false`; the model's strict field refuses other texts.

    Capitals are accepted, because generated Python clients send Python's `True`.
    """
    return value.lower() == "true" if value.lower() in ("true", "false") else value


# Of fields that are no texts.
_READERS: Mapping[str, Callable[[str], object]] = {"top_k": _number, "nearest": _number, "explain": _boolean}
