"""Bodies that come as a multipart form, fitted into the same request models as JSON."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from app.api.problems import invalid_of_validation
from app.error_codes import ErrorCode
from app.errors import FieldError, Invalid, Malformed, UnsupportedBody
from app.schemas.judging import MAX_IMAGES
from app.services.scoring import Upload

Model = TypeVar("Model", bound=BaseModel)

MAX_FORM_FIELDS = 300
MAX_FORM_BYTES = 200_000_000
# 256 labels of 200 characters, quoted and escaped.
_MAX_ARRAY_CHARS = 400_000


def media_type_of(request: Request) -> str:
    """Return the body's media type in lower case, without parameters."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def read_form(request: Request, model: type[Model], *, lists: Sequence[str]) -> tuple[list[Upload], Model]:
    """Read a multipart form with images and fields.

    Args:
        request: The request, its body unread.
        model: Takes the fields.
        lists: Fields that may be repeated.

    Raises:
        Malformed: It is not a multipart form.
        Invalid: There is no image, or a field does not fit.
    """
    async with open_form(request, max_files=MAX_IMAGES) as form:
        uploads = [
            Upload(await part.read(), f"#/{name}" if name == "image" else f"#/{name}/{index}")
            for index, (name, part) in enumerate(_files(form))
        ]
        fields = text_fields(form, lists)
    if not uploads:
        raise Invalid.field(
            "#/image", "An image file is missing. Send it as `image`, `images` or `files`.", ErrorCode.MISSING
        )
    return uploads, validate(model, fields)


@asynccontextmanager
async def open_form(request: Request, *, max_files: int) -> AsyncIterator[FormData]:
    """Read a multipart form, its larger files to disk, and close them at the end of the block.

    Raises:
        Malformed: It is not a multipart form, or has too many parts.
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
    """Fit a value into a model.

    Raises:
        Invalid: It does not fit; every fault is named, no input repeated.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid_of_validation(error, model) from None


def unsupported() -> UnsupportedBody:
    """Return the error for a body of neither type."""
    return UnsupportedBody("Send application/json or multipart/form-data.")


def _files(form: FormData) -> list[tuple[str, UploadFile]]:
    found = []
    for name, part in form.multi_items():
        if isinstance(part, UploadFile):
            if name not in ("image", "images"):
                raise Invalid.field(
                    f"#/{name[:64]}", "Send the files in the field `image` or `images`.", ErrorCode.UNKNOWN_FIELD
                )
            found.append((name, part))
    return found


def text_fields(form: FormData, lists: Sequence[str] = ()) -> dict[str, Any]:
    """Return a form's fields that are no files; those in `lists` may be repeated.

    Raises:
        Invalid: Another field is repeated, or a JSON array stands in a field.
    """
    fields: dict[str, Any] = {}
    faults = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            continue
        if name in lists and _is_json_array(value):
            detail = "A form takes no JSON array; repeat the field, once for each value."
            faults.append(FieldError(f"#/{name}", detail, ErrorCode.JSON_IN_FORM))
        elif name in lists:
            fields.setdefault(name, []).append(value)
        elif name in fields:
            faults.append(FieldError(f"#/{name[:64]}", "This field is given twice.", ErrorCode.REPEATED_FIELD))
        else:
            fields[name] = _number(value) if name == "top_k" else value
    if faults:
        raise Invalid(faults[0].detail, errors=faults)
    return fields


def _is_json_array(value: str) -> bool:
    """Tell whether a form's text spells a JSON array; one that long is no label anyway."""
    if not value.strip().startswith("[") or len(value) > _MAX_ARRAY_CHARS:
        return False
    try:
        return isinstance(json.loads(value), list)
    except (ValueError, RecursionError):
        return False


def _number(value: str) -> int | str:
    """Return a form's text as the integer it spells; a model's strict field refuses the rest."""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else value
