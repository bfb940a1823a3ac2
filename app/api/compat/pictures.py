"""What the surfaces share about images that are made from others: their base64, their size, their defaults.

Runs on the event loop.
"""

from dataclasses import dataclass
from math import sqrt

from app.access.caller import Caller
from app.api.compat.data_uris import upload_of
from app.api.compat.notes import Notes
from app.api.compat.requests import SizeRange, drawn_size
from app.api.deps import Services
from app.services.images.sources import as_base64, size_of
from app.services.scoring.service import Upload

# What is drawn where a client names no prompt, as for a variation; its weight is then none.
NO_PROMPT = "a picture"
NO_GUIDANCE = 1.0


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a request.

    Attributes:
        source: The field of the native request.
        size: Width and height in pixels; None where its header has none.
    """

    source: dict[str, str]
    size: tuple[int, int] | None


async def picture_of(data: bytes) -> Picture:
    """Return the picture that a file is."""
    return Picture({"image_b64": await as_base64(data)}, size_of(data))


async def picture_in(services: Services, text: str, pointer: str, caller: Caller) -> Picture:
    """Return the picture of a text in base64 or of a data URI; see `upload_of`."""
    upload: Upload = await upload_of(services, text, pointer, caller)
    return await picture_of(upload.data)


def size_for(
    sides: SizeRange, picture: Picture, wanted: tuple[int | None, int | None], notes: Notes
) -> tuple[int, int]:
    """Return the size that is drawn: the one that was asked for, or that of the picture in about the model's own area.

    Args:
        sides: Of the loaded model.
        picture: The initial image.
        wanted: Width and height; None where the client leaves them to the node.
        notes: Gets a note where another size is drawn than was asked for.
    """
    if wanted != (None, None) or picture.size is None:
        return drawn_size(sides, *wanted, notes)
    width, height = picture.size
    factor = sides.native / sqrt(width * height)
    return sides.nearest(max(1, round(width * factor)), max(1, round(height * factor)))
