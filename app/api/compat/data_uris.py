"""Images in JSON as clients send them: base64, with or without the prefix of a data URI. No URL is fetched."""

from dataclasses import replace

from app.access.caller import Caller
from app.api.compat.requests import naming
from app.api.deps import Services
from app.api.parsing.forms import validate
from app.error_codes import ErrorCode
from app.errors import Invalid
from app.schemas.judging import JudgedImages
from app.services.scoring.service import Upload

_NO_URL = "This node fetches no URLs. Send the image as a data URI, such as data:image/png;base64,...."


async def upload_of(services: Services, text: str, pointer: str, caller: Caller) -> Upload:
    """Return the image of a text in base64 or of a data URI.

    Args:
        services: Decode it.
        text: As the client sent it.
        pointer: JSON Pointer of the text, for errors.
        caller: Whose request it is.

    Raises:
        Invalid: It is a URL, or no base64.
    """
    head = text[:64].lower()
    if head.startswith(("http:", "https:", "ftp:", "file:")):
        raise Invalid.field(pointer, _NO_URL, ErrorCode.BAD_BASE64)
    if head.startswith("data:"):
        prefix, comma, text = text.partition(",")
        if not comma or not prefix.lower().endswith(";base64"):
            raise Invalid.field(pointer, "The data URI must be in base64.", ErrorCode.BAD_BASE64)
    with naming({"image_b64": pointer.removeprefix("#/")}):
        image = validate(JudgedImages, {"image_b64": text})
        [upload] = await services.judging.uploads_of(image, caller)
    return replace(upload, pointer=pointer)
