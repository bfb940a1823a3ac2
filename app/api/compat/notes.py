"""What an answer says of fields that could not be honoured: one header for people, one for programs.

Imports no services and no routes.
"""

import re
from collections.abc import Iterable, Mapping

from app.schemas.generations import WarningRead

HEADER = "X-Foxhound-Warning"
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]+")
# Of a sentence in a header; a note can repeat what was cut off a prompt.
_MAX_CHARS = 300


class Notes:
    """The notes of one request, in order."""

    def __init__(self) -> None:
        """Begin without notes."""
        self.items: list[WarningRead] = []

    def add(self, code: str, detail: str) -> None:
        """Add a note: a stable word and a sentence."""
        self.items.append(WarningRead(code=code, detail=detail))

    def unused(self, field: str, instead: str) -> None:
        """Note that a field which changes the picture is not used, and what is done instead, as a sentence."""
        self.add("field_not_used", f"The field {field} is not used. {instead}")

    def extend(self, warnings: Iterable[WarningRead]) -> None:
        """Add the warnings of a native answer."""
        self.items += warnings

    def headers(self) -> Mapping[str, str]:
        """Return the two headers; none without notes. They are ASCII, whatever a prompt has."""
        if not self.items:
            return {}
        details = ", ".join(f'299 foxhound "{_plain(item.detail)}"' for item in self.items)
        return {HEADER: ", ".join(item.code for item in self.items), "Warning": details}

    def as_json(self) -> list[dict[str, str]]:
        """Return the notes as JSON values."""
        return [item.model_dump() for item in self.items]


def _plain(text: str) -> str:
    return _NOT_PLAIN.sub("?", text)[:_MAX_CHARS].replace("\\", "/").replace('"', "'")
