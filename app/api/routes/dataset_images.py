"""`POST /datasets/{id}/images`: uploads real images into a dataset. Runs on the event loop; decodes nothing itself."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.access.ids import CallerDep, DatasetId
from app.api.deps import ServicesDep
from app.api.openapi import problems
from app.api.parsing.forms import MAX_FORM_BYTES, media_type_of, no_such_file, open_form, text_fields, validate
from app.error_codes import ErrorCode
from app.errors import FieldError, Invalid, UnsupportedBody
from app.schemas.forms import FORM_ENCODING
from app.schemas.uploads import MAX_FILES, UploadForm, UploadRead

router = APIRouter(prefix="/datasets/{dataset_id}", tags=["datasets"])

_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {"$ref": "#/components/schemas/UploadImagesForm"},
            "encoding": {"files": FORM_ENCODING["files"]},
        }
    },
}


@router.post(
    "/images",
    summary="Upload real images into a dataset",
    responses={
        200: {"description": "Every file was refused; each entry has the reason.", "model": UploadRead},
        201: {"description": "At least one file was stored; each entry has its result.", "model": UploadRead},
        **problems(400, 404, 408, 409, 413, 415, 422, 503, 507),
    },
    status_code=201,
    openapi_extra={"requestBody": _BODY},
    max_body_size=MAX_FORM_BYTES,
)
async def upload_dataset_images(
    dataset_id: DatasetId, request: Request, services: ServicesDep, caller: CallerDep, response: Response
) -> UploadRead:
    """Decode each file, rotate it upright, strip its metadata and store it. Each file is stored or refused separately.

    An image that the dataset contains already is refused, so an interrupted request can simply be repeated.
    `curl -F class_name=fox -F split=test -F files=@a.jpg -F files=@b.png http://127.0.0.1:8000/datasets/{id}/images`
    """
    if media_type_of(request) != "multipart/form-data":
        raise UnsupportedBody("Send multipart/form-data.")
    with services.uploads.admit():
        await asyncio.to_thread(services.uploads.check_room)
        async with open_form(request, max_files=MAX_FILES) as form:
            fields = validate(UploadForm, text_fields(form, files=("files",)))
            parts = [(name, part) for name, part in form.multi_items() if not isinstance(part, str)]
            if unknown := [name for name, _ in parts if name != "files"]:
                raise no_such_file(unknown[0], "Send the files in the field `files`.")
            if not parts:
                detail = "An image file is missing. Send it as `files`."
                raise Invalid(detail, errors=[FieldError("#/files", detail, ErrorCode.MISSING)])
            files = [part.file for _, part in parts]
            read = await services.uploads.add(dataset_id, fields, files, caller)
    response.status_code = 201 if read.num_accepted else 200
    return read
