"""Names that people chose, made safe for Markdown, YAML and one-line files. Imports nothing; any thread.

Class names are any text: line breaks, quotes, HTML, text from right to left, controls that turn the direction of what
follows.
"""

import re
import unicodedata
from typing import Final

# Characters that end a line for `str.splitlines`, and all others without a glyph: category Cc, Zl, Zp.
_CONTROLS: Final = ("Cc", "Zl", "Zp")
# Explicit directional marks, embeddings, overrides and isolates.
# Source: Unicode Standard Annex #9, section 2.
_DIRECTIONS: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$^=:@\"'])")
_FIRST_STRONG_ISOLATE, _POP_ISOLATE = "\u2068", "\u2069"


def one_line(text: str) -> str:
    """Return the text on one line, without controls; an empty text stays one."""
    kept = (" " if unicodedata.category(sign) in _CONTROLS else sign for sign in text if sign not in _DIRECTIONS)
    return " ".join("".join(kept).split())


def markdown(text: str) -> str:
    """Return the text such that a Markdown reader shows it literally, inside of a line or a table's cell."""
    line = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = _MARKDOWN.sub(r"\\\1", line)
    if any(unicodedata.bidirectional(sign) in ("R", "AL") for sign in line):
        return f"{_FIRST_STRONG_ISOLATE}{escaped}{_POP_ISOLATE}"
    return escaped
