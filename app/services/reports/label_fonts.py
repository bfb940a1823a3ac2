"""Which font draws a text without boxes: Pillow's own, else one of those that systems commonly have.

Knows nothing of sheets. Font files are looked for once a process, on the thread that first asks.
"""

from collections.abc import Sequence
from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SIZE = 13  # pixels
# Looked for where the system keeps fonts, tried in this order: first what reads best, last what covers most.
_FILES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "FreeSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",
    "unifont.otf",
    "unifont.ttf",
)
# No character, now or ever (Unicode, 23.7): every font draws its box for it.
_NO_CHARACTER = "\U0010ffff"


@lru_cache(maxsize=1)
def system_fonts() -> tuple[Font, ...]:
    """Return the fonts that are there, Pillow's own first: what it covers looks the same on every machine."""
    found: list[Font] = [ImageFont.load_default(SIZE)]
    for name in _FILES:
        try:
            found.append(ImageFont.truetype(name, SIZE))
        except OSError:
            continue
    return tuple(found)


def font_for(text: str, fonts: Sequence[Font]) -> Font | None:
    """Return the first font that has every character of a text; None where none has."""
    signs = {sign for sign in text if not sign.isspace()}
    return next((font for font in fonts if _covers(font, signs)), None)


def _covers(font: Font, signs: set[str]) -> bool:
    box = _drawn(font, _NO_CHARACTER)
    return all(_drawn(font, sign) != box for sign in signs)


def _drawn(font: Font, sign: str) -> tuple[tuple[int, int], bytes, float]:
    """Return the pixels that a character gives, and the width that it takes."""
    mask = font.getmask(sign)
    return mask.size, bytes(mask), font.getlength(sign)
