"""Choice of a font that has every character of a text: Pillow's default font, else a common system font.

Imports nothing but Pillow. The first caller loads the fonts, once in each process, on its thread.
"""

from collections.abc import Sequence
from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SIZE = 13  # pixels
# Searched in the system's font folders in this order: the most readable first, those with most characters last.
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
# A noncharacter (Unicode, 23.7): every font renders its replacement box for it.
_NO_CHARACTER = "\U0010ffff"


@lru_cache(maxsize=1)
def system_fonts() -> tuple[Font, ...]:
    """Return the available fonts, Pillow's default first: its characters look the same on every machine."""
    found: list[Font] = [ImageFont.load_default(SIZE)]
    for name in _FILES:
        try:
            found.append(ImageFont.truetype(name, SIZE))
        except OSError:
            continue
    return tuple(found)


def font_for(text: str, fonts: Sequence[Font]) -> Font | None:
    """Return the first font that has every character of a text; None if there is none."""
    characters = {character for character in text if not character.isspace()}
    return next((font for font in fonts if _covers(font, characters)), None)


def _covers(font: Font, characters: set[str]) -> bool:
    box = _glyph(font, _NO_CHARACTER)
    return all(_glyph(font, character) != box for character in characters)


def _glyph(font: Font, character: str) -> tuple[tuple[int, int], bytes, float]:
    """Return size and pixels of a rendered character, and its advance width."""
    mask = font.getmask(character)
    return mask.size, bytes(mask), font.getlength(character)
